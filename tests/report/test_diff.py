"""Diffs: ops found again under other names, sums that add up, tables that fit, a page that escapes."""

import copy
import io
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from llmjax.report.diff import BETWEEN, METRICS, Change, diff, match, parse_share
from llmjax.report.diff_view import groups, percent, print_diff, to_html
from tests.report.costs import HOSTILE, cost_of, hostile, many, text_of, timed

OLD, NEW = cost_of(text_of("cpu_0.10.2_block_f32.hlo")), cost_of(text_of())


def renumbered(cost, seed=0):
    """The same program as XLA may name it another day: every number drawn anew, no name twice."""
    found, numbers = copy.deepcopy(cost), list(range(len(cost["ops"])))
    random.Random(seed).shuffle(numbers)
    for op, number in zip(found["ops"], numbers, strict=True):
        op["name"] = re.sub(r"(\.\d+)*$", f".{number}", op["name"])
    return found


def shown(found, width):
    text = io.StringIO()
    print_diff(found, Console(file=text, width=width, color_system=None))
    return text.getvalue()


def test_cycles_come_first():
    costly, bulky = copy.deepcopy(timed(NEW)), copy.deepcopy(timed(NEW))
    slower, larger = bulky["ops"][1], bulky["ops"][2]
    slower |= {"cycles": slower["cycles"] + 1000.0, "module_path": "slower"}
    larger["bytes_read"] *= 100
    found = diff(costly, bulky)
    assert found.ops[0].name == groups(found)[0].line.name == slower["name"]
    assert next(iter(found.metrics)) == next(iter(found.totals)) == "cycles"


def test_cycles_are_those_that_the_cost_job_prints():
    one = timed(NEW)
    whole = sum(op["cycles"] for op in one["ops"]) + 5000
    two = one | {"time": one["time"] | {"cycles": whole}}
    found = diff(one, two)
    assert found.totals["cycles"].after == whole and found.totals["cycles"].change == pytest.approx(5000)
    (between,) = [line for line in found.roles if line.role == BETWEEN]
    assert between.changes["cycles"].after == pytest.approx(5000)


def test_the_rounding_of_a_sum_is_no_time_between_ops():
    one = timed(NEW)
    whole = sum(op["cycles"] for op in one["ops"]) * (1 + 1e-14)
    found = diff(one, one | {"time": one["time"] | {"cycles": whole}})
    assert BETWEEN not in [line.role for line in found.roles]


def test_a_program_is_itself():
    found = diff(timed(NEW), timed(NEW))
    assert {line.status for line in found.ops} == {"same"}
    assert all(not c.change for c in found.totals.values()) and list(found.totals) == list(METRICS[:3])
    assert found.over(0.0) == {} and groups(found) == []


@pytest.mark.parametrize("cost", [NEW, cost_of(many(200))], ids=["block", "many"])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_renumbered_ops_are_found_again(cost, seed):
    other = renumbered(cost, seed)
    pairs = match(cost["ops"], other["ops"])
    assert all(old and new for old, new in pairs)
    found = diff(cost, other)
    assert {line.status for line in found.ops} == {"same"}


def test_exact_names_come_first():
    a = NEW["ops"][0] | {"name": "fusion.1", "count": 1, "bytes_read": 8}
    b = a | {"name": "fusion.2"}
    pairs = match([a, b], [b, a])
    assert [(old["name"], new["name"]) for old, new in pairs if old and new] == [("fusion.2",) * 2, ("fusion.1",) * 2]


def test_sizes_tell_renumbered_ops_apart():
    small = NEW["ops"][0] | {"name": "fusion.1", "count": 1, "bytes_read": 8, "bytes_written": 8}
    large = small | {"name": "fusion.2", "bytes_read": 800}
    pairs = match([small, large], [large | {"name": "fusion.1"}, small | {"name": "fusion.2"}])
    assert [(old["bytes_read"], new["bytes_read"]) for old, new in pairs if old and new] == [(800, 800), (8, 8)]


def test_what_came_and_went():
    before, after = copy.deepcopy(NEW), copy.deepcopy(NEW)
    gone = before["ops"].pop(0)
    new = after["ops"].pop()
    status = {line.name: line.status for line in diff(before, after).ops if line.status != "same"}
    assert status == {gone["name"]: "new", new["name"]: "gone"}


@pytest.mark.parametrize(("before", "after"), [(OLD, NEW), (NEW, OLD), (timed(OLD), timed(NEW))])
def test_everything_adds_up(before, after):
    found = diff(before, after)
    for metric, total in found.totals.items():
        for rows in (found.ops, found.roles):
            assert sum(row.changes[metric].before for row in rows) == pytest.approx(total.before)
            assert sum(row.changes[metric].after for row in rows) == pytest.approx(total.after)
        grouped = groups(found)
        assert sum(g.changes[metric].change for g in grouped) == pytest.approx(total.change, abs=1e-6 * total.before)
        assert sum(g.count for g in grouped) == sum(line.status != "same" for line in found.ops)


def test_cycles_are_compared_where_both_have_them():
    assert list(diff(timed(OLD), timed(NEW)).metrics) == ["cycles", "flops", "bytes"]
    half = diff(timed(OLD), NEW)
    assert "cycles" not in half.metrics and "only the program before has predicted cycles" in half.missing


def test_what_is_not_comparable_is_said():
    found = diff(NEW | {"lower_bound": True}, NEW | {"backend": "gpu"})
    assert any("different targets: cpu before, gpu after" in note for note in found.missing)
    assert "LOWER BOUND: the program before" in shown(found, 80).replace("\n", " ")


def test_growth_is_held_against_a_share():
    grown = copy.deepcopy(NEW)
    grown["ops"][0]["bytes_read"] += 1000
    grown["totals"]["bytes_read"] += 1000
    found = diff(NEW, grown)
    share = 1000 / (NEW["totals"]["bytes_read"] + NEW["totals"]["bytes_written"])
    assert list(found.over(share / 2)) == ["bytes"] and found.over(share * 2) == {}
    assert diff(grown, NEW).over(0.0) == {}
    assert Change(0, 5).share is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0, 5, "new"),
        (0, 0, ""),
        (4, 4, ""),
        (200, 203, "+1.5%"),
        (200, 100, "−50.0%"),
        (1e6, 1e6 + 1, "+<0.1%"),
        (2, 24, "×12"),
        (1, 48_000, "×48.0 k"),
        (5, 0, "−100.0%"),
    ],
)
def test_changes_as_people_read_them(before, after, said):
    assert percent(Change(before, after)) == said


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), (" 0.5 %", 0.005), ("0%", 0.0), ("", None)])
def test_shares(text, share):
    assert parse_share(text, "x") == share


@pytest.mark.parametrize("text", ["2", "-2%", "two%", "%", "2%%", "nan%"])
def test_shares_that_are_none(text):
    with pytest.raises(ValueError, match=r"x='.*' must be a percentage such as 2%"):
        parse_share(text, "x")


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(("before", "after"), [(OLD, NEW), (timed(OLD), timed(NEW)), (hostile(), NEW)])
def test_tables_fit(before, after, width):
    text = shown(diff(before, after), width)
    assert max(map(len, text.splitlines()[1:])) <= width  # the title is not cut
    assert "in all" in text and "by role" in text


def test_json_has_every_op(repo):
    found = diff(OLD, NEW)
    stored = json.loads(json.dumps(found.to_object()))
    assert stored["schema"] == "llmjax.diff/1" and len(stored["ops"]) == len(found.ops)
    assert {op["status"] for op in stored["ops"]} <= {"same", "changed", "new", "gone"}
    assert stored["totals"]["flops"]["after"] == NEW["totals"]["flops"]
    documented = (repo / "docs" / "reports.md").read_text("utf-8")
    for name in {*stored, *stored["ops"][0], *stored["by_role"][0], *stored["totals"]["flops"]}:
        assert f"`{name}`" in documented, name


def test_the_page_escapes_what_programs_say():
    page = to_html(diff(hostile(), NEW), HOSTILE, HOSTILE, "b")
    assert "<img" not in page and "<script" not in page and "&lt;img src=x" in page
    assert "LOWER BOUND" in page and "default-src 'none'" in page


def test_sums_that_differ_by_rounding_are_the_same():
    assert Change(0.1 + 0.2, 0.3).change == 0 and Change(0.3, 0.3000001).change > 0
