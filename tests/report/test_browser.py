"""The page in a real browser: it draws, it fetches nothing, it runs nothing that a model wrote."""

import pytest



def opened(browser, report, scheme="light"):
    """The report in a page of its own that notes what it asks for and complains about."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme).new_page()
    page.requests, page.complaints = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    return page


@pytest.fixture(scope="module")
def page(browser, report):
    """One page for the tests that each move a part of their own: opening it takes seconds."""
    return opened(browser, report)


def test_every_plot_is_drawn_without_complaint_or_request(page, report):
    plots = page.locator(".plot").all()
    assert len(plots) == 9  # loss, three small ones, token lengths, and two maps twice
    for plot in plots:
        marks = plot.locator("svg .scatterlayer path, svg .barlayer path").count()
        assert marks > 0, plot.get_attribute("id")
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report.as_uri()]


def test_a_script_in_a_sample_is_shown_as_text(page):
    assert page.evaluate("window.hacked") is None
    assert "<script>window.hacked = true</script>" in page.locator(".sample.on").inner_text()


@pytest.mark.parametrize("width", [360, 820, 1280])
def test_the_page_is_never_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_theme_follows_the_system_and_its_button_changes_plots_too(browser, report, page):
    colour = "getComputedStyle(document.querySelector('#loss .scatterlayer .trace:nth-child(2) path.js-line')).stroke"
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = opened(browser, report, "dark")
    at_night = dark.evaluate(colour), dark.evaluate(paper)
    by_day = page.evaluate(colour), page.evaluate(paper)
    assert at_night[0] != by_day[0] and at_night[1] != by_day[1]
    dark.click("#theme")
    dark.wait_for_selector("html[data-drawn=light]")
    assert (dark.evaluate(colour), dark.evaluate(paper)) == by_day


def test_the_slider_shows_one_step_at_a_time(page):
    assert page.locator("#step-name").inner_text() == "step 1,500"
    page.locator("#step").fill("0")
    assert page.locator("#step-name").inner_text() == "step 0"
    assert page.locator(".sample:visible").count() == 1


def test_the_last_step_has_its_label_on_every_axis_of_steps(page):
    shown = """name => [...document.querySelectorAll(`#${name} .xtick text`)]
        .filter(t => getComputedStyle(t).display !== "none" && getComputedStyle(t).opacity !== "0").map(t => t.textContent)"""
    for name in ("loss", "lr", "speed", "grad"):
        assert page.evaluate(shown, name)[-1] in ("1500", "1,500"), name


def test_a_long_command_is_whole_on_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 900})
    assert page.evaluate("[...document.querySelectorAll('.command code')].every(c => c.scrollWidth <= c.clientWidth)")


def test_the_loss_changes_unit_and_axis(page):
    ticks = page.locator("#loss .ytick").all_inner_texts()
    page.click("button:text('bits per byte')")
    page.wait_for_function("before => document.querySelector('#loss .ytick').textContent !== before", arg=ticks[0])
    page.click("text=log steps")
    assert page.evaluate("document.getElementById('loss').layout.xaxis.type") == "log"
    assert page.locator("#loss .scatterlayer path.js-line").count() >= 3 and page.complaints == []


def test_a_token_is_found_in_every_map(page):
    page.fill("#find", " return")
    found = "['tsne-before', 'tsne-after'].map(id => document.getElementById(id).data.filter(t => t.name === 'found').length)"
    page.wait_for_function(f"{found}.join() === '1,1'")
    page.fill("#find", "")
    page.wait_for_function(f"{found}.join() === '0,0'")
