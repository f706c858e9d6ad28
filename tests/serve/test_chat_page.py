"""The chat page in a real browser, as a user has it: it streams, stops, branches, keeps what was said, and says what went wrong."""

import json
import math
import re
import time

import pytest
from page_stub import asked, kept, opened, say, shown

PARIS = "Paris is the capital of France."


def setting(page, name, value):
    page.click("header >> text=Settings")
    page.fill(f"#{name}", value)
    page.press(f"#{name}", "Tab")
    page.keyboard.press("Escape")


# ---------- asking and answering
def test_an_answer_is_streamed_and_nothing_else_is_fetched(page, stub):
    page.click("text=What is a token")
    page.wait_for_selector(".stats:has-text('7 tokens')")
    assert shown(page) == ["What is a token, in two sentences?", PARIS]
    (body,) = stub.bodies
    assert asked(body) == [("user", "What is a token, in two sentences?")]
    assert {k: v for k, v in body.items() if k != "messages"} == {
        "model": "tiny-model", "stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 5}
    assert page.complaints == []
    assert all(url.startswith((page.address, "data:")) for url in page.requests)


def test_the_next_question_carries_the_conversation(page, stub):
    setting(page, "system", "Be brief.")
    say(page, "hello")
    say(page, "markdown")
    assert asked(stub.bodies[1])[:3] == [("system", "Be brief."), ("user", "hello"), ("assistant", PARIS)]
    assert asked(stub.bodies[1])[3:] == [("user", "markdown")]


def test_settings_are_sent_only_when_set_and_kept(page, stub):
    for name, value in (("temperature", "0.3"), ("top_p", "0.9"), ("top_k", "40"), ("min_p", "0.05"), ("seed", "7"),
                        ("repetition_penalty", "1.1"), ("max_tokens", "64")):
        setting(page, f"set-{name}", value)
    setting(page, "set-top_k", "")
    page.reload()
    page.click("header >> text=Settings")
    page.uncheck("#set-probabilities")
    page.keyboard.press("Escape")
    say(page, "hello")
    body = {k: v for k, v in stub.bodies[0].items() if k not in ("messages", "model", "stream", "stream_options")}
    assert body == {"temperature": 0.3, "top_p": 0.9, "min_p": 0.05, "seed": 7, "repetition_penalty": 1.1, "max_tokens": 64}
    assert page.locator("button:text-is('Tokens')").count() == 1 and not page.locator("button:text-is('Tokens')").is_visible()


def test_a_wrong_setting_is_not_taken(page, stub):
    page.click("header >> text=Settings")
    page.fill("#set-temperature", "9")
    page.press("#set-temperature", "Enter")
    assert page.locator("#set-temperature:invalid").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    say(page, "hello")
    assert "temperature" not in stub.bodies[0]


def test_the_model_is_chosen_where_there_are_several(browser, stub):
    stub.models = ["first", "org/second"]
    page = opened(browser, stub)
    page.wait_for_selector("#fine:has-text('first')")
    page.click("header >> text=Settings")
    page.select_option("#choose", "org/second")
    page.keyboard.press("Escape")
    say(page, "hello")
    assert stub.bodies[0]["model"] == "org/second" and page.locator("#fine").inner_text().startswith("second")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_keeps_what_was_written_and_tells_the_server(page, stub, how):
    say(page, "slow", done=False)
    page.wait_for_selector("text=Paris is the")
    page.click("#send:text('Stop')") if how == "button" else page.keyboard.press("Escape")
    page.wait_for_selector(".stats:has-text('stopped by you')")
    for _ in range(100):
        if stub.left:
            break
        time.sleep(0.02)
    assert stub.left == ["slow"] and shown(page) == ["slow", "Paris is the"]
    say(page, "hello")
    assert ("assistant", "Paris is the") in asked(stub.bodies[1])


def test_two_conversations_are_answered_at_once(page, stub):
    say(page, "slow one", done=False)
    page.wait_for_selector("text=Paris is the")
    page.click("#new")
    say(page, "hello two")
    assert shown(page) == ["hello two", PARIS] and page.locator("#talks .busy").count() == 1
    stub.gate.set()
    page.wait_for_selector("#talks .busy", state="detached")
    page.click("#talks .open:text('slow one')")
    assert shown(page) == ["slow one", PARIS]


def test_the_speed_is_tokens_by_time(page):
    """Seven tokens, a fifth of a second between them or more; a busy browser may see the first of them late."""
    say(page, "paced")
    speed = float(re.search(r"([\d.]+) tokens/s", page.locator(".stats").inner_text()).group(1))
    assert 1.5 < speed < 7.5


# ---------- branches
def test_regenerating_keeps_the_earlier_answer(page, stub):
    say(page, "hello")
    page.click("text=Regenerate")
    page.wait_for_selector(".which:visible >> text=2/2")
    assert stub.bodies[0] == stub.bodies[1]
    page.click("[aria-label='Earlier version']:visible")
    assert page.locator(".which:visible").inner_text().replace("\n", "") == "‹1/2›"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Later version"
    page.reload()
    page.click("#talks .open")
    assert page.locator(".which:visible").inner_text().replace("\n", "") == "‹1/2›"


def test_an_edited_question_opens_a_branch_and_the_old_one_stays(page, stub):
    say(page, "hello first")
    say(page, "hello second")
    page.locator("button:text-is('Edit')").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("script other")
    page.keyboard.press("Enter")
    page.wait_for_selector(".which:visible >> text=2/2")
    page.wait_for_selector("#send:text('Send')")
    assert asked(stub.bodies[2]) == [("user", "script other")] and shown(page)[0] == "script other"
    page.click("[aria-label='Earlier version']:visible")
    assert shown(page) == ["hello first", PARIS, "hello second", PARIS]


def test_one_answer_at_a_time_in_a_conversation(page, stub):
    say(page, "hello")
    say(page, "slow", done=False)
    page.wait_for_selector("text=Paris is the >> nth=-1")
    page.locator("text=Regenerate").first.click()
    page.wait_for_selector("#notice >> text=Stop the answer first.")
    assert len(stub.bodies) == 2 and page.locator(".turn").count() == 4


def test_arrow_up_edits_the_last_question_and_escape_leaves_it(page, stub):
    say(page, "hello")
    page.press("#ask", "ArrowUp")
    assert page.locator(".edit").input_value() == "hello"
    page.keyboard.type(" changed")
    page.keyboard.press("Escape")
    assert shown(page)[0] == "hello" and len(stub.bodies) == 1


# ---------- what is kept
def test_conversations_outlive_the_page_and_can_be_deleted_and_brought_back(page):
    say(page, "hello one")
    page.click("#new")
    say(page, "hello two")
    page.reload()
    assert page.locator("#talks .open").all_inner_texts() == ["hello two", "hello one"]
    page.click("[aria-label='Delete hello two']", force=True)
    assert page.locator("#talks .open").all_inner_texts() == ["hello one"] and len(kept(page)) == 1
    page.click("#notice >> text=Undo")
    assert page.locator("#talks .open").all_inner_texts() == ["hello two", "hello one"] and len(kept(page)) == 2
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("header >> text=Settings")
    page.click("text=Delete all conversations")
    assert kept(page) == [] and page.locator("#talks").inner_text() == "None yet."


def test_what_is_exported_can_be_imported_elsewhere(browser, stub, page, tmp_path):
    setting(page, "system", "Be brief.")
    say(page, "hello")
    page.click("text=Regenerate")
    page.wait_for_selector(".which:visible >> text=2/2")
    page.wait_for_selector("#send:text('Send')")
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "chats.json")
    other = opened(browser, stub)
    other.set_input_files("#file", tmp_path / "chats.json")
    other.wait_for_selector("text=Imported 1 conversation.")
    assert kept(other) == kept(page) and shown(other) == shown(page)


def test_importing_an_older_copy_does_not_overwrite_what_went_on_since(page, tmp_path):
    say(page, "hello")
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "chats.json")
    say(page, "markdown")
    for _ in range(2):
        page.set_input_files("#file", tmp_path / "chats.json")
        page.wait_for_selector("text=Imported 1 conversation.")
    assert sorted(len(talk["messages"]) for talk in kept(page)) == [2, 4]


def test_deleting_by_keyboard_stays_in_the_list(page):
    for word in ("one", "two", "three"):
        page.click("#new")
        say(page, f"hello {word}")
    page.focus("[aria-label='Delete hello two']")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == "Delete hello one"


def test_a_conversation_of_the_terminal_is_imported(page, tmp_path):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    (tmp_path / "talk.json").write_text(json.dumps({"model": "m", "messages": messages}))
    page.set_input_files("#file", tmp_path / "talk.json")
    page.wait_for_selector(".text >> text=Hello.")
    assert shown(page) == ["Hi", "Hello."] and page.locator("#system").input_value() == "Be brief."
    assert page.locator(".error:visible").count() == 0


@pytest.mark.parametrize("content", ["not JSON", "[]", '{"messages": [{"role": "user"}]}', '{"conversations": [3, null]}', "null"])
def test_another_file_is_refused_by_its_name(page, tmp_path, content):
    (tmp_path / "taxes.json").write_text(content)
    page.set_input_files("#file", tmp_path / "taxes.json")
    page.wait_for_selector("#notice >> text=taxes.json holds no conversations")
    assert kept(page) == []


def test_damaged_storage_does_not_stop_the_page(page):
    wicked = {"id": "x", "first": 9, "messages": [{"role": "user", "text": "Hi", "next": 0, "parent": 0}, {"role": "__proto__", "text": "Ho", "parent": 5,
              "tokens": [[1, 2, 3, 4], ["a"], None], "stats": {"tokens": "<b>"}, "error": {"a": 1}}]}
    page.evaluate("""wicked => { localStorage['llmwright-chat:a'] = '{'; localStorage['llmwright-chat:b'] = '3';
        localStorage['llmwright-chat:x'] = JSON.stringify(wicked); localStorage['llmwright-chat-settings'] = '[]'; }""", wicked)
    page.reload()
    assert page.locator("#talks .open").count() == 1
    page.click("#talks .open")
    say(page, "hello")
    assert shown(page)[-1] == PARIS and page.complaints == []


def test_full_storage_costs_old_token_details_before_any_text(page):
    say(page, "hello old")
    page.evaluate("""() => { for (let size = 2 ** 22; size > 20; size >>= 1) try { localStorage['filler' + size] = 'x'.repeat(size); } catch { /* smaller ones */ } }""")
    page.click("#new")
    say(page, "hello new")
    old, new = sorted(kept(page), key=lambda talk: talk["changed"])
    assert "tokens" not in old["messages"][1] and old["messages"][1]["text"] == new["messages"][1]["text"] == PARIS


def test_an_answer_that_its_page_left_says_so(page):
    say(page, "slow", done=False)
    page.wait_for_selector("text=Paris is the")
    page.reload()
    page.click("#talks .open")
    assert shown(page)[-1] == "Paris is the"
    assert "broke off when its page was closed" in page.locator(".error").inner_text()


def test_another_tab_shows_what_was_said_here(page):
    other = page.context.new_page()
    other.goto(page.address)
    say(page, "hello")
    other.wait_for_selector("#talks .open:text('hello')")
    other.click("#talks .open")
    assert shown(other) == ["hello", PARIS]


# ---------- what goes wrong
def test_a_key_is_asked_for_used_and_forgotten_with_the_tab(browser, stub):
    stub.key = "sesame"
    page = opened(browser, stub)
    page.wait_for_selector("#keyform:has-text('asks for an API key')")
    say(page, "hello")
    page.fill("#keyask", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#keyform:has-text('refused this API key')")
    page.fill("#keyask", "sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"text={PARIS}")
    assert not page.locator("#keyform").is_visible()
    assert "sesame" not in page.evaluate("JSON.stringify({...localStorage})")
    page.reload()
    say(page, "hello")
    assert shown(page)[-1] == PARIS


def test_a_refusal_says_why_and_its_question_is_not_asked_again(page, stub):
    say(page, "wrong")
    assert page.locator(".error").inner_text().startswith("The server refused this: temperature must be at most 2")
    page.click("text=Try again")
    page.wait_for_selector("text=temperature must be")
    say(page, "hello")
    assert len(stub.bodies) == 3 and asked(stub.bodies[2]) == [("user", "hello")]


def test_a_busy_server_is_asked_again_when_it_said(page, stub):
    start = time.monotonic()
    say(page, "busy", done=False)
    page.wait_for_selector("text=The server is busy: trying again in 1 s")
    page.wait_for_selector(f"text={PARIS}")
    assert len(stub.bodies) == 3 and time.monotonic() - start > 2


def test_waiting_for_a_busy_server_can_be_stopped(page, stub):
    say(page, "busy", done=False)
    page.wait_for_selector("text=The server is busy")
    page.click("#send:text('Stop')")
    page.wait_for_selector("#send:text('Send')")
    assert len(stub.bodies) == 1


def test_a_broken_stream_keeps_its_text_and_offers_another_try(page):
    say(page, "cut")
    assert shown(page)[-1] == "Paris is the"
    assert page.locator(".error").inner_text().startswith("The answer broke off: the connection to the server was lost.")
    page.click("text=Try again")
    page.wait_for_selector(".which:visible >> text=2/2")


def test_a_server_that_is_down_is_said_and_found_again(page):
    page.wait_for_selector("#fine:has-text('tiny-model')")
    page.route("**/v1/**", lambda route: route.abort())
    say(page, "hello")
    assert page.locator(".error").inner_text().startswith("The server does not answer. Is it still running?")
    page.wait_for_selector("#down:has-text('Trying again every')")
    page.unroute("**/v1/**")
    page.wait_for_selector("#down", state="hidden")
    page.click("text=Try again")
    page.wait_for_selector(f"text={PARIS}")


def test_an_answer_that_hit_its_limit_says_so(page):
    say(page, "length")
    assert "cut at the length limit" in page.locator(".stats").inner_text()


# ---------- tokens
ROWS = "[...document.querySelectorAll('#rivals li')].map(r => [...r.children].map(c => c.textContent).filter(Boolean).join(' ') + (r.className ? ' *' : ''))"


def test_pointing_at_a_word_shows_its_probability_and_its_rivals(page):
    say(page, "hello")
    box = page.evaluate("""() => { const node = document.querySelector('.text p').firstChild, range = document.createRange();
        range.setStart(node, node.data.indexOf('capital')); range.setEnd(node, node.data.indexOf('capital') + 7);
        const { x, y, width, height } = range.getBoundingClientRect(); return { x, y, width, height }; }""")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#rivals:popover-open")
    assert page.evaluate(ROWS) == ["␣capital 50.0% *", "␣rival 25.0%", "↵ 10.0%"]
    assert page.locator("#rivals p").inner_text() == "all other tokens together 15.0%"
    assert page.evaluate("[...CSS.highlights.get('token')][0].toString()") == " capital"
    page.click("button:text-is('Tokens')")
    page.locator(".tokens span").nth(1).focus()
    page.mouse.move(5, 5)  # the keyboard's token stays when the pointer goes
    page.wait_for_function(f"{ROWS}[0] === '␣is 50.0% *'")
    page.focus("#ask")
    page.wait_for_selector("#rivals", state="hidden")


def test_tokens_are_walked_by_keyboard(page):
    say(page, "hello")
    page.click("button:text-is('Tokens')")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.locator(".tokens [tabindex='0']").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.textContent") == " of"  # the fifth: drawn though unlikely
    assert page.evaluate("document.activeElement.ariaLabel") == "␣of, 2.0%; ␣other 60.0%, ␣rival 25.0%, ↵ 10.0%"
    assert page.evaluate(ROWS) == ["␣other 60.0%", "␣rival 25.0%", "↵ 10.0%", "␣of 2.0% *"]
    assert page.locator(".tokens span").evaluate_all("spans => spans.map(s => s.className)") == ["u1", "u1", "u1", "u1", "u4", "u1", "u1"]
    page.keyboard.press("Escape")
    page.wait_for_selector("#rivals", state="hidden")


def test_perplexity_is_the_exponential_of_the_mean_surprise(page):
    """Six tokens of probability a half, one of a fiftieth."""
    say(page, "hello")
    page.click("button:text-is('Tokens')")
    by_hand = math.exp((6 * math.log(2) + math.log(50)) / 7)
    assert f"perplexity of the answer {by_hand:.2f}" in page.locator(".key").inner_text()


# ---------- for everyone
def test_everything_is_reached_by_keyboard_and_shows_its_focus(page):
    say(page, "markdown")
    page.evaluate("document.activeElement.blur()")
    seen = []
    for _ in range(24):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("""() => { const e = document.activeElement; if (e === document.body) return ['', true]; const s = getComputedStyle(e), f = getComputedStyle(e.closest('form') ?? e);
            return [(e.ariaLabel || e.textContent || e.id).trim(), s.outlineStyle !== 'none' || f.boxShadow !== 'none']; }"""))
    names = [name for name, _ in seen]
    for wanted in ("New conversation", "Export", "Import", "Settings", "Edit", "the manual", "Copy code", "Code", "Table", "Regenerate", "Tokens", "Message"):
        assert wanted in names, (wanted, names)
    assert all(visible for name, visible in seen if name), seen


def test_shift_enter_is_a_line_and_enter_sends(page, stub):
    page.click("#ask")
    page.keyboard.type("hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    page.wait_for_selector("#send:text('Send')")
    assert asked(stub.bodies[0]) == [("user", "hello\nthere")]


def test_a_screen_reader_hears_sentences_and_the_end(page):
    say(page, "hello")
    assert page.locator("#heard").get_attribute("aria-live") == "polite"
    assert page.locator("#heard div").all_text_contents() == [PARIS, "End of the answer."]


def test_the_theme_follows_the_system_until_it_is_chosen(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    day = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{paper} !== '{day}'")
    page.click("#theme")
    assert page.evaluate(paper) == day
    page.reload()
    assert page.evaluate(paper) == day
    page.click("#theme")
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{paper} === '{day}'")  # what the system has was chosen: it is followed again


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, stub, scheme):
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    page = opened(browser, stub, color_scheme=scheme)
    ratios = page.evaluate("""() => {
        const value = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
        const light = hex => { const full = hex.length < 6 ? hex.replace(/[0-9a-f]/g, '$&$&') : hex; return [1, 3, 5].map(i => parseInt(full.slice(i, i + 2), 16) / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0); };
        const pairs = ['--ink', '--ink-2', '--accent', '--bad'].flatMap(a => ['--paper', '--panel', '--soft'].map(b => [a, b])).concat([['--on-accent', '--accent']]);
        return Object.fromEntries(pairs.map(([a, b]) => { const [x, y] = [light(value(a)), light(value(b))].sort(); return [a + ' on ' + b, (y + 0.05) / (x + 0.05)]; })); }""")
    assert not {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5}


@pytest.mark.parametrize("width", [320, 360, 820, 1280])
def test_the_page_is_never_wider_than_the_screen(browser, stub, width):
    page = opened(browser, stub, viewport={"width": width, "height": 700})
    wide = "[document.documentElement.scrollWidth, document.getElementById('scroll').scrollWidth - document.getElementById('scroll').clientWidth]"
    say(page, "markdown " + "w" * 300)
    page.click("button:text-is('Tokens')")
    assert page.evaluate(wide) == [width, 0]
    page.click("header >> text=Settings")
    assert page.locator("#settings").bounding_box()["width"] <= width and page.evaluate(wide) == [width, 0]


def test_conversations_open_in_a_drawer_on_a_phone(browser, stub):
    page = opened(browser, stub, viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    page.fill("#ask", "hello")
    page.tap("#send")
    page.wait_for_selector(f"text={PARIS}")
    assert not page.locator("#side").is_visible()
    page.tap("#menu")
    page.tap("#new")
    assert not page.locator("#side").is_visible() and page.locator("#empty").is_visible()


# ---------- the real server
def test_the_page_talks_with_the_real_server(browser, server):
    """A small model with random weights: gibberish, but every token of it has to arrive and be placed."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    for name, value in (("max_tokens", "24"), ("temperature", "1"), ("top_k", "50"), ("min_p", "0.01"), ("seed", "3"), ("repetition_penalty", "1.1")):
        setting(page, f"set-{name}", value)
    setting(page, "system", "import")
    say(page, "import os")
    page.wait_for_selector(".stats:has-text('24 tokens')")
    page.click("button:text-is('Tokens')")
    (talk,) = kept(page)
    message = talk["messages"][1]
    assert len(message["tokens"]) == page.locator(".tokens span").count() == 24 and message["finish"] == "length"
    assert all(len(rivals) == 5 for *_, rivals in message["tokens"])
    for (at, text, _, _), (end, *_) in zip(message["tokens"], message["tokens"][1:]):
        if "\ufffd" not in text and not text.startswith("‹"):
            assert message["text"][at:end].lstrip("\ufffd") == text  # before it may stand what a broken letter left
    say(page, "again")
    assert page.locator(".turn").count() == 4 and complaints == []
    context.close()
