"""The HTML report in a headless Chromium: it opens without an error, sorts, filters, switches and prints."""

import re
import shutil

import pytest

from llmjax.report.diff import diff
from llmjax.report.diff_view import to_html as diff_html
from llmjax.report.html import Program, to_html
from llmjax.report.page import Column, Page, Plot, Section, Series, Table
from llmjax.report.page import to_html as page_html
from tests.report.costs import HOSTILE, cost_of, hostile, many, text_of, timed
from tests.report.pages import sample

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -e '.[test]')")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")

TEXT = text_of()
COST, COST_BEFORE = cost_of(TEXT), cost_of(text_of("cpu_0.10.2_block_f32.hlo"))
BIG = many(10_000)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with playwright.sync_playwright() as p:
        folder = tmp_path_factory.mktemp("profile")  # empty: nothing of the user's browser comes in
        flags = [*FLAGS, "--disable-component-update"]
        context = p.chromium.launch_persistent_context(
            str(folder), executable_path=CHROMIUM, args=flags, viewport={"width": 1280, "height": 800}
        )
        context.set_default_timeout(120_000)  # ms: the machine may be busy with the other tests
        yield context
        context.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Returns a function from HTML to the opened page; at the end no page may have logged an error or warning."""
    said, pages = [], []

    def load(html, scheme="light"):
        (tmp_path / "page.html").write_text(html, "utf-8")
        page = browser.new_page()
        pages.append(page)
        page.emulate_media(color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("console", lambda message: said.append(message.text) if "WARN" in message.text else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url[:5] in ("file:", "data:") else said.append(request.url))
        page.goto((tmp_path / "page.html").as_uri())
        return page

    yield load
    for page in pages:
        page.close()
    assert said == []


def report(cost=None, text=TEXT):
    return to_html([Program("decode", timed(COST) if cost is None else cost, text)])


def cells(page, key):
    column = page.eval_on_selector_all("table.ops th", "heads => heads.map(head => head.dataset.key)").index(key)
    script = "(rows, k) => rows.map(row => row.cells[k].textContent)"
    return page.eval_on_selector_all("table.ops tbody tr.op", script, column)


def test_a_phone_scrolls_no_page_sideways(open_page):
    for html in (report(), diff_html(diff(timed(COST), timed(COST_BEFORE)), "t", "a", "b"), page_html(sample())):
        page = open_page(html)
        page.set_viewport_size({"width": 400, "height": 800})
        if page.locator("tr.op").count():
            page.locator("tr.op").first.click()
        page.wait_for_function("document.documentElement.scrollWidth === 400")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_with_its_charts(open_page, scheme):
    page = open_page(report(), scheme)
    for chart in ("tree", "roofline", "scatter"):
        assert page.locator(f".chart.{chart} .main-svg").first.is_visible()
    assert page.locator(".chart.tree .slice").count() > 5
    assert page.locator(".chart.roofline .point").count() > 5
    assert "Half of them are predicted within 20.0%" in page.inner_text(".truth .hint")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != background


def test_the_table_sorts(open_page):
    page = open_page(report())
    for key in ("bytes", "flops"):
        page.click(f"th[data-key={key}]")
        assert page.get_attribute(f"th[data-key={key}]", "aria-sort") == "descending"
        most = max(op["flops"] if key == "flops" else op["bytes_read"] + op["bytes_written"] for op in COST["ops"])
        top = page.eval_on_selector("table.ops tbody tr.op", "row => Number(row.dataset.op)")
        op = COST["ops"][top]
        assert most == (op["flops"] if key == "flops" else op["bytes_read"] + op["bytes_written"])
    page.click("th[data-key=name]")
    names = cells(page, "name")
    assert page.get_attribute("th[data-key=name]", "aria-sort") == "ascending"
    assert names[0] == min(names) and len(names) > 20
    page.focus("th[data-key=name]")
    page.keyboard.press("Enter")
    assert page.get_attribute("th[data-key=name]", "aria-sort") == "descending"


def test_the_table_filters(open_page):
    page = open_page(report())
    page.fill("input[type=search]", "H_1/MLP fusion")
    found = cells(page, "module_path")
    assert set(found) == {"h_1/mlp"}
    assert f"{len(found)} of {len(COST['ops'])} ops" in page.inner_text(".filters .count")
    page.fill("input[type=search]", "")
    page.select_option("select.role", "attention scores")
    assert set(cells(page, "role")) == {"attention scores"}
    page.fill("input[type=search]", "no such op")
    assert cells(page, "name") == [] and "0 of" in page.inner_text(".filters .count")


def test_a_row_opens(open_page):
    page = open_page(report())
    k = next(k for k, op in enumerate(COST["ops"]) if len(op["fused"]) > 1)
    op = COST["ops"][k]
    page.fill("input[type=search]", op["name"])
    page.click(f'tr.op[data-op="{k}"]')
    told = page.inner_text("tr.detail")
    assert op["source"].rpartition("/")[2] in told
    assert "Bound by memory:DRAM" in told and "fused interior" in told
    assert op["fused"][0]["name"] in told and f"%{op['name']} = " in page.inner_text("tr.detail pre")
    assert f"kernel {op['name']}" not in told
    page.click(f'tr.op[data-op="{k}"]')
    assert page.locator("tr.detail").count() == 0


def test_the_metric_switches(open_page):
    page = open_page(report())
    heads = {"flops": "FLOPs", "bytes": "bytes", "cycles": "predicted cycles", "measured": "measured cycles"}
    for metric, head in heads.items():
        page.click(f".switch.metric button[data-value={metric}]")
        assert page.inner_text(".by.role th:nth-child(3)") == head
        assert page.get_attribute(f".switch.metric button[data-value={metric}]", "aria-pressed") == "true"
        assert page.locator(".chart.tree .slice").count() > 5
    page.click(".switch.shape button[data-value=treemap]")
    assert page.locator(".chart.tree .treemaplayer .slice").count() > 5
    page.click(".switch.clock button[data-value=seconds]")
    assert "predicted FLOP/s" in page.text_content(".chart.roofline .ytitle")


def test_a_block_lists_its_ops(open_page):
    page = open_page(report())
    page.locator(".chart.tree .slice", has_text="h_1").first.click()
    page.wait_for_selector(".chip")
    assert page.inner_text(".chip").startswith("in h_1")
    assert all(path.startswith("h_1/") for path in cells(page, "module_path"))
    page.click(".chip button")
    assert page.locator(".chip").count() == 0


def test_a_point_opens_its_op(open_page):
    page = open_page(report())
    page.locator(".chart.roofline").scroll_into_view_if_needed()
    page.locator(".chart.roofline .point").last.click(force=True)
    page.wait_for_selector("tr.detail")


def test_times_are_told_in_cycles_or_in_milliseconds(open_page):
    page = open_page(report())
    page.click("th[data-key=cycles]")
    before, names = cells(page, "cycles"), cells(page, "name")
    assert "predicted cycles" in page.inner_text("th[data-key=cycles]").lower()
    page.click(".switch.unit button[data-value=s]")
    assert "predicted time" in page.inner_text("th[data-key=cycles]").lower()
    after = cells(page, "cycles")
    assert after[0].endswith(("ns", "µs", "ms")) and not before[0].endswith("s")
    assert cells(page, "name") == names
    assert "s" in page.inner_text(".by.role td.number:nth-child(3)")
    page.click(".switch.unit button[data-value=cycles]")
    assert cells(page, "cycles") == before


def test_tabs_switch(open_page):
    page = open_page(to_html([Program("prefill", COST, TEXT), Program("decode", timed(COST), TEXT)]))
    assert page.is_visible("#program-0") and not page.is_visible("#program-1")
    page.click("#tab-1")
    assert page.is_visible("#program-1 .chart.scatter .main-svg >> nth=0") and not page.is_visible("#program-0")
    assert page.get_attribute("#tab-1", "aria-selected") == "true"
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#program-0") and page.get_attribute("#tab-0", "aria-selected") == "true"


def test_what_is_not_known_is_said(open_page):
    page = open_page(report(COST, ""))
    assert page.is_disabled(".switch.metric button[data-value=cycles]")
    assert page.is_disabled(".switch.metric button[data-value=measured]")
    assert "Neither a device nor times" in page.inner_text(".roof .hint")
    assert "no predicted and measured times" in page.inner_text(".truth .hint")
    page.click("tr.op >> nth=0")
    assert "names no device" in page.inner_text("tr.detail") and page.locator("tr.detail pre").count() == 0


def test_a_roof_without_times(open_page):
    page = open_page(report(timed(COST, predicted=False, measured=False)))
    assert "each op stands on the roof" in page.inner_text(".roof .hint")
    assert "attainable FLOP/s" in page.text_content(".chart.roofline .ytitle")
    assert "DRAM 20.0 GB/s (measured)" in page.text_content(".chart.roofline .infolayer")


def test_names_with_markup(open_page):
    page = open_page(to_html([Program(HOSTILE, hostile(), TEXT, HOSTILE), Program("b", COST, TEXT)], HOSTILE))
    page.fill("input[type=search]", "onerror")
    page.click("tr.op >> nth=0")
    assert HOSTILE in page.inner_text("tr.detail") and page.inner_text("h1") == HOSTILE
    assert page.locator("img").count() == 0 and page.title().startswith("<img")
    page.locator(".chart.tree .slice", has_text="img").first.hover()
    assert "LOWER BOUND" in page.inner_text(".warning >> nth=0")


def test_ten_thousand_ops(open_page):
    page = open_page(report(timed(cost_of(BIG)), BIG))
    assert page.inner_text(".filters .count").startswith("10,000 ops")
    assert page.locator("tr.op").count() <= 100
    slowest = page.evaluate("""() => {
        const begin = performance.now();
        document.querySelector('th[data-key=name]').click();
        const input = document.querySelector('input[type=search]');
        input.value = 'h_3/';
        input.dispatchEvent(new Event('input'));
        return performance.now() - begin;
    }""")
    assert slowest < 5000  # ms, on a busy machine; about 200 on an idle one
    assert set(cells(page, "module_path")) == {"Net/h_3/mlp"}
    page.click(".pages button >> nth=1")
    assert "page 2 of" in page.inner_text(".pages")


def test_it_prints(open_page, tmp_path):
    page = open_page(report(), "dark")
    seen = []
    page.expose_function("seen", lambda *values: seen.append(values))
    page.evaluate("""addEventListener('beforeprint', () => {
        const chart = document.querySelector('.chart.roofline .main-svg');
        seen(getComputedStyle(document.body).backgroundColor, chart.clientWidth);
    })""")
    assert len(page.pdf(print_background=True)) > 20_000
    ((background, width),) = seen
    assert min(map(int, re.findall(r"\d+", background)[:3])) > 240
    assert width == 690
    assert page.locator(".chart.roofline .main-svg").first.evaluate("svg => svg.clientWidth") > 1000


def test_the_diff_opens(open_page):
    page = open_page(diff_html(diff(cost_of(text_of("cpu_0.10.2_block_f32.hlo")), COST), "a diff", "a.hlo", "b.hlo"))
    assert page.locator("table.delta tbody tr").count() > 3
    assert "bytes" in page.inner_text(".cards")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_with_its_plots(open_page, scheme):
    page = open_page(page_html(sample()), scheme)
    charts = page.locator(".chart.plot")
    plots = [plot for section in sample().sections for plot in section.plots]
    assert charts.count() == len(plots)
    for k, plot in enumerate(plots):
        charts.nth(k).scroll_into_view_if_needed()
        charts.nth(k).locator(".main-svg").first.wait_for()
        points = sum(y is not None for series in plot.series for y in series.y)
        assert charts.nth(k).locator(".point").count() == points + (plot.style == "waterfall")
        bottom, place = page.evaluate(
            """chart => [chart.getBoundingClientRect().bottom,
                Math.max(...[...chart.querySelectorAll('text')].map(text => text.getBoundingClientRect().bottom))]""",
            charts.nth(k).element_handle(),
        )
        assert place <= bottom + 1  # no label is cut off
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
    label = charts.last.locator(".xtick text").first
    ink = label.evaluate("text => getComputedStyle(text).fill")
    page.evaluate("document.getElementById('theme').click()")
    assert label.evaluate("text => getComputedStyle(text).fill") != ink


def test_the_contents_lead_to_sections(open_page):
    page = open_page(page_html(sample()))
    assert page.inner_text(".toc a[aria-current]") == "What one token is, in clock cycles"
    page.click(".toc a >> nth=2")
    page.wait_for_function("document.querySelector('.toc a[aria-current]').textContent === 'What optimisation buys'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_page_prints_with_every_plot(open_page):
    page = open_page(page_html(sample()), "dark")
    seen = []
    page.expose_function("seen", lambda *values: seen.append(values))
    page.evaluate("""addEventListener('beforeprint', () => {
        const drawn = [...document.querySelectorAll('.chart.plot')].map(chart => chart.querySelector('.main-svg'));
        seen(getComputedStyle(document.body).backgroundColor, drawn.map(svg => svg && svg.clientWidth));
    })""")
    assert len(page.pdf(print_background=True)) > 20_000
    ((background, widths),) = seen
    assert min(map(int, re.findall(r"\d+", background)[:3])) > 240
    assert widths == [690] * page.locator(".chart.plot").count()


def test_a_page_of_markup(open_page):
    column = Column(HOSTILE, "cycles", "measured")
    series = tuple(Series(f"{HOSTILE}{k}", "measured", (HOSTILE, "b"), (1.0, 2.0)) for k in range(2))
    plots = tuple(Plot(HOSTILE, style, column, column, series) for style in ("bars", "lines", "points", "waterfall"))
    table = Table(HOSTILE, (column,), ((HOSTILE,),), HOSTILE)
    page = open_page(
        page_html(Page(HOSTILE, HOSTILE, (Section("a", HOSTILE, (HOSTILE,), (table,), plots, (HOSTILE,)),)))
    )
    for k in range(4):
        page.locator(".chart.plot").nth(k).scroll_into_view_if_needed()
        page.locator(".chart.plot").nth(k).locator(".point").first.hover(force=True)
    assert page.inner_text("h1") == HOSTILE and page.locator("img").count() == 0
    assert page.title() != "broken"
