"""What a model writes, on the chat page: Markdown becomes elements, and nothing a model can write becomes more than that."""

import re

import pytest
from page_stub import ANSWERS, kept, opened, say


TEXT = "document.querySelector('.answer .text')"
# the tree in short: elements by name, text as it stands
TREE = """() => { const tree = node => node.nodeType === 3 ? node.data : `<${node.localName}${node.href ? ' ' + node.getAttribute('href') : ''}>`
    + [...node.childNodes].map(tree).join('') + `</${node.localName}>`; return [...document.querySelector('.answer .text').childNodes].map(tree).join(''); }"""


def drawn(page, stub, text):
    ANSWERS["case"] = text
    say(page, "case")
    return page.evaluate(TREE)


@pytest.mark.parametrize("text, tree", [
    ("# One\n\ntwo *three* **four _five_** ~~six~~ `se*v*en`", "<h3>One</h3><p>two <em>three</em> <strong>four <em>five</em></strong> <del>six</del> <code>se*v*en</code></p>"),
    ("***both*** and **one *two***", "<p><strong><em>both</em></strong> and <strong>one <em>two</em></strong></p>"),
    ("snake_case_name, 2 * 3 * 4, \\*kept\\*, **open", "<p>snake_case_name, 2 * 3 * 4, *kept*, **open</p>"),
    ("**use `**kwargs` here** and ``a`b``", "<p><strong>use <code>**kwargs</code> here</strong> and <code>a`b</code></p>"),
    ("1. a\n   - b\n   - c\n\n2. d\n\n   e", "<ol><li><p>a</p><ul><li><p>b</p></li><li><p>c</p></li></ul></li><li><p>d</p><p>e</p></li></ol>"),
    ("* a\n\t* b\n* c\n\nd", "<ul><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ul><p>d</p>"),
    ("It was in\n1984. A year", "<p>It was in\n1984. A year</p>"),
    ("> a\n> > b\n\n---\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><hr></hr><p>c</p>"),
    ("a|b\n-|-\n`x\\|y`|*z*\n1", "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td><code>x\\|y</code></td><td><em>z</em></td></tr></tbody></table></div><p>1</p>"),
    ("[a *b*](https://x.org/y_(z)) https://x.org/q?a=1. <https://z.org>", '<p><a https://x.org/y_(z)>a <em>b</em></a> <a https://x.org/q?a=1>https://x.org/q?a=1</a>. <a https://z.org/>https://z.org</a></p>'),
    ("a & b &lt; <b>c</b><br>d", "<p>a & b &lt; <b>c</b><br></br>d</p>"),
])
def test_markdown_by_hand(page, stub, text, tree):
    found = drawn(page, stub, text)
    assert found == tree.replace("<b>c</b>", "<b>c</b>")


def test_code_is_copied_without_its_fence_and_an_answer_as_it_was_written(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    say(page, "markdown")
    page.click("[aria-label='Copy code']")
    assert page.evaluate("navigator.clipboard.readText()") == "def count(text: str) -> int:\n    return len(text.split())  # <b>not bold</b>"
    page.click(".answer .tools >> text=Copy")
    assert page.evaluate("navigator.clipboard.readText()") == ANSWERS["markdown"]


def test_links_say_where_they_go_and_tell_nobody_where_they_come_from(page):
    say(page, "script")
    links = page.locator(".answer a").evaluate_all("all => all.map(a => [a.href, a.rel, a.target, a.title === a.href])")
    assert [link[0] for link in links] == ["https://example.org/a_b", "https://example.org/a.png", "https://example.org/b"]
    assert all(link[1:] == ["noopener noreferrer nofollow", "_blank", True] for link in links)


def test_letters_that_turn_the_order_around_are_shown_in_code(page):
    say(page, "rtl")
    assert page.locator(".control").all_inner_texts() == ["U+202E", "U+2066"]
    assert page.locator(".text p").first.evaluate("p => getComputedStyle(p).direction") == "rtl"


def processor_seconds(page):
    """Seconds of the page's own thread from now on: other work of the machine does not count."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    now = lambda: next(m["value"] for m in session.send("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")  # noqa: E731
    start = now()
    return lambda: now() - start


HOSTILE = sorted(set(ANSWERS) - {"hello", "case"})


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_shown_safely_and_quickly(browser, stub, name):
    """Drawn piece by piece as it comes it is what it is when drawn at once, in seconds, at a phone's width; every text node
    knows its place in the source; nothing but the renderer's own elements is made."""
    page = opened(browser, stub, viewport={"width": 360, "height": 700})
    spent = processor_seconds(page)
    say(page, name)
    streamed_in = spent()
    streamed = page.evaluate(f"{TEXT}.innerHTML")
    made = set(page.evaluate(f"[...{TEXT}.querySelectorAll('*')].map(e => e.localName)"))
    assert made <= set("p h3 h4 h5 h6 ul ol li blockquote hr div pre code span button table thead tbody tr th td em strong del a br".split())
    assert not [name for name in page.evaluate(f"[...{TEXT}.querySelectorAll('*')].flatMap(e => e.getAttributeNames())") if name.startswith("on")]
    assert page.evaluate("window.hacked") is None and page.complaints == []
    assert page.evaluate("[document.documentElement.scrollWidth, document.getElementById('scroll').scrollWidth]") == [360, 360]
    (talk,) = kept(page)
    source = talk["messages"][1]["text"]
    assert source == ANSWERS[name]
    misplaced = f"""source => {{ const walker = document.createTreeWalker({TEXT}, NodeFilter.SHOW_TEXT), wrong = [];
        while (walker.nextNode()) {{ const {{ data, at }} = walker.currentNode; if (at !== undefined && source.slice(at, at + data.length) !== data) wrong.push([at, data]); }}
        return wrong; }}"""
    assert page.evaluate(misplaced, source) == []
    page.reload()
    page.click("#menu")
    spent = processor_seconds(page)
    page.click("#talks .open")
    page.wait_for_selector(".answer")
    assert page.evaluate(f"{TEXT}.innerHTML") == streamed
    assert streamed_in < 2 and spent() < 1.5  # measured on an idle core: at most 0.5 and 0.4


def test_no_word_is_lost(page, stub):
    """Every letter and digit that a model wrote is on the page, in its order."""
    for text in (ANSWERS["markdown"], ANSWERS["script"].replace("https://example.org/a_b", "").replace("https://example.org/a.png", "")):
        drawn(page, stub, text)
        words = lambda t: re.findall(r"\w+", t)  # noqa: E731
        found = page.locator(".answer .text").last.evaluate("e => e.textContent")
        source = words(text.replace("https://docs.python.org/3/", "").replace("1. ", "").replace("2. ", "").replace("3. ", "").replace("```python", "pythonCopy").replace("_", ""))
        assert [w for w in source if w not in words(found.replace("_", "")) and w not in found] == []
