"""The Chrome trace: two tracks, slices that nest by module path, and none where there are no times."""

import json

import pytest

from llmjax.report.trace import to_trace
from tests.report.costs import cost_of, many, text_of, timed

COST = cost_of(text_of())


def slices(trace, pid):
    return [e for e in json.loads(trace)["traceEvents"] if e["ph"] == "X" and e["pid"] == pid]


def names(trace):
    return {e["pid"]: e["args"]["name"] for e in json.loads(trace)["traceEvents"] if e["name"] == "process_name"}


def test_without_times_there_is_no_trace():
    assert to_trace({"x": COST}) == ""


def test_predicted_stands_above_measured():
    trace = to_trace({"x": timed(COST)})
    assert names(trace) == {1: "predicted", 2: "measured"}
    assert names(to_trace({"x": timed(COST, predicted=False)})) == {2: "measured"}
    both = to_trace({"prefill": timed(COST), "decode": timed(COST)})
    assert list(names(both).values()) == [
        "predicted: prefill",
        "measured: prefill",
        "predicted: decode",
        "measured: decode",
    ]


@pytest.mark.parametrize("cost", [timed(COST), timed(cost_of(many(300)))], ids=["block", "many"])
def test_ops_nest_by_module_path(cost):
    trace = to_trace({"x": cost})
    for pid, field in ((1, "seconds"), (2, "measured_seconds")):
        found = slices(trace, pid)
        ops = [e for e in found if "opcode" in e["args"]]
        assert [e["name"] for e in ops] == [op["name"] for op in cost["ops"]]
        assert sum(e["dur"] for e in ops) == pytest.approx(1e6 * sum(op[field] for op in cost["ops"]), rel=1e-3)
        # As a viewer does it: what begins before the last one's end is inside it.
        around = []
        for event, (start, end) in ((e, (round(1e3 * e["ts"]), round(1e3 * (e["ts"] + e["dur"])))) for e in found):
            while around and around[-1][1] <= start and not (start == end == around[-1][1]):
                around.pop()
            if around:
                assert around[-1][0] <= start and end <= around[-1][1]
            if "opcode" in event["args"]:
                continue
            around.append((start, end, event["args"]["module_path"]))
        paths = {e["args"]["module_path"] for e in found if "module_path" in e["args"]}
        assert {op["module_path"] for op in cost["ops"] if op["module_path"]} <= paths


def test_an_op_says_what_it_is():
    cost = timed(COST)
    first = next(e for e in slices(to_trace({"x": cost}), 1) if "opcode" in e["args"])
    op = cost["ops"][0]
    assert {name: first["args"][name] for name in ("flops", "bytes_read", "bound", "low")} == {
        name: op[name] for name in ("flops", "bytes_read", "bound", "low")
    }
    assert first["dur"] == pytest.approx(1e6 * op["seconds"], abs=1e-3)
