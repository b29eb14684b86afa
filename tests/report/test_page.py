"""Pages: what they refuse, their JSON, and that any of them renders on a terminal and as HTML with nothing lost."""

import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from llmjax.report import page_charts, page_html
from llmjax.report.page import (
    KINDS,
    Cell,
    Column,
    Page,
    Plot,
    Section,
    Series,
    Table,
    print_page,
    to_html,
    to_json,
)
from tests.report.pages import CYCLES, STAGES, sample

HOSTILE = "<img src=x onerror=alert(1)>&\u2028</script>"
OF, TIME = Column("of"), Column("time", "s", "measured")


def shown(page, width):
    text = io.StringIO()
    print_page(page, Console(file=text, width=width, color_system=None))
    return text.getvalue()


def of_table(*rows, columns=(OF, TIME), **more):
    return Page("p", "", (Section("s", "S", (), (Table("t", columns, rows, **more),)),))


def data_of(html):
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cell(1.0, "guessed"), "'guessed'"),
        (lambda: Column("c", "s", "guessed"), "'guessed'"),
        (lambda: Table("t", (TIME,), ((1.0, 2.0),)), "row 0 has 2 cells for 1 columns"),
        (lambda: Table("t", (TIME,), (([1.0],),)), "got list"),
        (lambda: Series("n", "measured", (1, 2), (1.0,)), "2 x, 1 y"),
        (lambda: Series("n", "measured", (1,), (1.0,), (0.5,)), "1 low, 0 high"),
        (lambda: Series("n", "measured", (1,), ("much",)), "'much'"),
        (lambda: Plot("p", "pie", TIME, TIME, ()), "'pie'"),
        (lambda: Plot("p", "waterfall", TIME, TIME, (), log_y=True), "no logarithmic axis"),
        (lambda: Section("a b", "A", ()), "'a b'"),
        (lambda: Section("a", "A", "a finding"), "findings is a tuple"),
        (lambda: Page("p", "", (Section("a", "A", ()), Section("a", "B", ()))), "two sections have the key 'a'"),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises((ValueError, TypeError), match=re.escape(said)):
        make()


def test_json_holds_every_figure_and_its_kind():
    found = json.loads(to_json(sample()))
    assert found["schema"] == "llmjax.page/1" and len(found["sections"]) == 3
    row = found["sections"][0]["tables"][0]["rows"][0]
    assert row[0] == {"value": "tokenise", "kind": ""} and row[1] == {"value": 2.1e5, "kind": "measured"}
    assert found["sections"][2]["plots"][0]["series"][0]["y"][-1] is None
    other = json.loads(to_json(of_table(("a", np.float32(0.5)), ("b", float("nan")), ("c", Cell(np.int64(2), "user")))))
    assert [row[1]["value"] for row in other["sections"][0]["tables"][0]["rows"]] == [0.5, None, 2]
    assert other["sections"][0]["tables"][0]["rows"][2][1]["kind"] == "user"


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_it(width):
    text = shown(sample(), width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert text.index("One token of GPT-2 124M takes") < text.index("Stages of a decode step")
    assert re.search(r"MLP +31\.0 M +8\.93 ms +57\.9%", text)
    assert "no hardware" in text and "27.4 msᵐ" in text and "271 µs~" in text
    assert "ᵐ measured on the machine; ~ predicted by the cycle model" in text


def test_a_waterfall_on_a_terminal_falls():
    lines = [line for line in shown(sample(), 80).splitlines() if re.search("[▏▎▍▌▋▊▉█]", line)]
    assert [re.split(" {2,}| [▏▎▍▌▋▊▉█]", line)[0] for line in lines] == list(STAGES)
    starts = [re.search("[▏▎▍▌▋▊▉█]", line).start() for line in lines]
    room = 80 - max(map(len, STAGES)) - 20
    assert [s - starts[0] for s in starts] == [int(sum(CYCLES[:k]) / sum(CYCLES) * room) for k in range(len(CYCLES))]


def test_a_wide_table_is_told_in_parts():
    columns = (Column("model"), *(Column(f"measurement {k}", "s", "measured") for k in range(12)))
    text = shown(of_table(("gpt2", *(k * 1e-3 for k in range(12))), columns=columns), 80)
    assert text.count("gpt2") > 1 and all(len(line) <= 80 for line in text.splitlines())
    assert [k for k in range(1, 12) if f"{k}.00 ms" in text or f"{k}.0 ms" in text] == list(range(1, 12))


def test_one_kind_is_said_once_and_several_where_they_differ():
    html = to_html(of_table(("a", 1.0), ("b", 2.0)))
    assert html.count('class="badge measured">') == 2  # in the key and beside the table's title
    mixed = to_html(of_table(("a", 1.0), ("b", Cell(2.0, "modelled"))))
    assert '<th class="number">time<br><span class="badge measured">' in mixed
    assert '<td class="number"><span class="badge modelled">modelled</span> 2.00 s</td>' in mixed
    own = to_html(of_table(("a", Cell(1.0, "modelled")), ("b", Cell(2.0, "user")), columns=(OF, Column("t"))))
    assert 'modelled">modelled</span> 1</td>' in own and 'user">user</span> 2</td>' in own


def test_units_stand_in_the_cell_or_the_head():
    columns = (
        Column("speed", "tokens/s"),
        Column("cycles a token", "cycles"),
        Column("moved", "B"),
        Column("share", "%"),
    )
    html = to_html(of_table((48.25, 72.5e6, 518e6, 0.5), columns=columns))
    assert "speed, tokens/s</th>" in html and "cycles a token</th>" in html
    for cell in ("48.2", "72.5 M", "518 MB", "50.0%"):
        assert f">{cell}</td>" in html


def test_sentences_beside_many_columns_stand_below_their_row():
    why = "it reads the weights once, and main memory gives no more"
    columns = (OF, *(Column(f"measurement-{k}", "s", "measured") for k in range(9)), Column("why"))
    html = to_html(of_table(("a", *(1.0,) * 9, why), ("b", *(2.0,) * 9, None), columns=columns))
    text = shown(of_table(("a", *(1.0,) * 9, why), ("b", *(2.0,) * 9, None), columns=columns), 80)
    assert f"- a: {why}" in text and "- b" not in text
    assert f'<td colspan="10"><b>why</b> {why}</td>' in html and "<th>why" not in html
    few = to_html(of_table(("a", 1.0, why), columns=(OF, TIME, Column("why"))))
    assert f"<td>{why}</td>" in few and "colspan" not in few


def test_measured_is_points_and_predicted_a_line():
    figures = data_of(to_html(sample()))
    measured, predicted, alone = figures[1]["traces"]
    assert (measured["mode"], predicted["mode"]) == ("markers", "lines+markers")
    assert measured["colour"] == predicted["colour"] != alone["colour"]
    assert figures[1]["layout"]["xaxis"]["ticktext"] == ["16", "32", "64", "128", "256", "512", "1,024"]
    assert set(figures[1]["layout"]["yaxis"]["ticktext"]) >= {"1 ms", "10 ms", "100 µs"}
    points, band, line = figures[2]["traces"]
    assert figures[2]["layout"]["yaxis"]["title"]["text"] == "time (ms)"
    assert points["y"][0] == pytest.approx(28.1) and points["error_y"]["array"][0] == pytest.approx(2.81)
    assert band["band"] and band["y"][-1] == pytest.approx(0.8 * line["y"][0])


def test_a_line_shows_where_y_is_as_large_as_x():
    series = Series("chip", "modelled", (1e-3, 2e-1), (4e-3, 1e-1))
    plot = Plot("both", "points", Column("published", "s"), Column("predicted", "s"), (series,), equal=True)
    *_, line = page_charts.figure(plot)["traces"]
    assert line["x"] == line["y"] == [pytest.approx(1), pytest.approx(200)] and line["equal"]


def test_a_waterfall_adds_up():
    (trace,) = data_of(to_html(sample()))[0]["traces"]
    assert trace["base"][3] == pytest.approx(sum(trace["x"][:3])) and trace["base"][-1] == 0
    assert trace["x"][-1] == pytest.approx(sum(CYCLES) / 1e6) and trace["text"][-1] == "53.6 M"


def test_a_page_without_plots_carries_no_plotly():
    page = to_html(of_table(("a", 1.0)))
    assert len(page) < 100_000 and "default-src 'none'" in page
    assert len(to_html(sample())) > 3_000_000


words = st.one_of(st.text(max_size=12), st.just(HOSTILE))
kinds = st.sampled_from(KINDS)
numbers = st.one_of(st.floats(), st.integers(-(10**30), 10**30))
values = st.one_of(st.none(), numbers, words)
columns = st.builds(Column, words, st.sampled_from(["", "s", "B", "FLOP/s", "%", "x", "cycles", "tokens/s"]), kinds)


@st.composite
def tables(draw):
    heads = tuple(draw(st.lists(columns, max_size=6)))
    row = st.tuples(*(st.one_of(values, st.builds(Cell, values, kinds)) for _ in heads))
    return Table(draw(words), heads, tuple(draw(st.lists(row, max_size=4))), draw(words))


@st.composite
def series(draw):
    n = draw(st.integers(0, 5))

    def some(item):
        return tuple(draw(st.lists(item, min_size=n, max_size=n)))

    ends = [some(st.one_of(st.none(), st.floats())) for _ in range(2)] if draw(st.booleans()) else [(), ()]
    x = some(numbers if draw(st.booleans()) else st.one_of(numbers, words))
    return Series(draw(words), draw(kinds), x, some(st.one_of(st.none(), st.floats())), *ends)


@st.composite
def drawn_plots(draw):
    style = draw(st.sampled_from(["bars", "lines", "points", "waterfall"]))
    found = tuple(draw(st.lists(series(), max_size=3)))
    log_y = style != "waterfall" and draw(st.booleans())
    numeric = style in ("lines", "points") and not any(isinstance(x, str) for one in found for x in one.x)
    return Plot(
        draw(words),
        style,
        draw(columns),
        draw(columns),
        found,
        draw(st.booleans()),
        log_y,
        draw(words),
        numeric and draw(st.booleans()),
    )


plots = drawn_plots()
sections = st.builds(
    Section,
    st.integers().map(lambda k: f"key_{k}"),
    words,
    st.lists(words, max_size=2).map(tuple),
    st.lists(tables(), max_size=2).map(tuple),
    st.lists(plots, max_size=2).map(tuple),
    st.lists(words, max_size=2).map(tuple),
)
pages = st.builds(Page, words, words, st.lists(sections, max_size=2, unique_by=lambda s: s.key).map(tuple))


@given(pages)
@settings(max_examples=60, deadline=None)
def test_any_page_renders(page):
    json.loads(to_json(page))
    for width in (80, 120):
        assert shown(page, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_html, "plotly_js", lambda: "")  # its megabytes, sixty times, prove nothing
        html = to_html(page)
    data_of(html)
    assert "<img" not in html and html.count("</script>") == 2 + len(page_html.SCRIPTS)


@given(plots)
@settings(max_examples=200, deadline=None)
def test_any_plot_is_finite(plot):
    def check(value):
        if isinstance(value, dict):
            return all(map(check, value.values()))
        if isinstance(value, list):
            return all(map(check, value))
        return not isinstance(value, float) or math.isfinite(value)

    made = page_charts.figure(plot)
    assert check(made) and made["height"] > 0
    for trace in made["traces"]:
        assert len(trace["x"]) == len(trace["y"])
