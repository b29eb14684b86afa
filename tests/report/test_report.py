"""The report: its tables at 80 columns and wider, its JSON, CSV and HTML."""

import csv
import dataclasses
import io
import json
import sys
from pathlib import Path

import pytest

import llmjax
from llmjax.analysis import compiler_totals
from llmjax.cycles.device import load_device
from llmjax.errors import UserError
from llmjax.report.export import FIGURES, SCHEMA
from llmjax.report.headlines import headlines
from llmjax.report.remarks import warnings
from llmjax.report.table import to_text
from llmjax.report.units import short

HLO = Path(__file__).parent.parent / "testdata" / "hlo"
FIXTURES = sorted(path.name for path in HLO.glob("*.hlo"))

UNKNOWN = """HloModule m
body {
  t = (s32[], f32[4,4]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  x = f32[4,4] get-tuple-element(t), index=1
  n = s32[] custom-call(i), custom_call_target="mystery"
  y = f32[4,4] dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT r = (s32[], f32[4,4]) tuple(n, y)
}
cond {
  t = (s32[], f32[4,4]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  c = s32[] constant(3)
  ROOT l = pred[] compare(i, c), direction=LT
}
ENTRY e {
  p = (s32[], f32[4,4]) parameter(0)
  ROOT w.1 = (s32[], f32[4,4]) while(p), condition=cond, body=body
}
"""


def wide(name: str, depth: int) -> str:
    """A module whose names are too long for any terminal."""
    path = "/".join(["a_rather_long_scope"] * depth)
    return f"""HloModule {name}
ENTRY e {{
  {name} = f32[8] parameter(0)
  ROOT {name}_out = f32[8] add({name}, {name}), metadata={{op_name="jit(f)/{path}/add"}}
}}
"""


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("name", FIXTURES)
def test_tables_fit(name, width):
    text = to_text(llmjax.analyze_hlo(HLO / name), width)
    assert max(map(len, text.splitlines())) <= width
    assert "by role" in text and "FLOPs" in text
    assert "\x1b" not in text


def test_long_names_fit_and_paths_keep_their_end():
    lines = to_text(llmjax.analyze_hlo(wide("an_instruction_name_" * 8, 12)), 80).splitlines()
    table = lines[next(k for k, line in enumerate(lines) if line.startswith("top ops")) :]
    assert max(map(len, table)) <= 80
    assert "…" in table[2] and "long_scope" in table[2]


def test_the_screen_tells_the_totals():
    report = llmjax.analyze_hlo(HLO / "cpu_0.12.0.1_block_f32.hlo")
    text = to_text(report, 80)
    assert "6.55 MFLOP" in text  # make.py's two layers: 2 x (2 x 32 x 12 x 64^2 + 2 x 2 x 2 x 16^2 x 64)
    assert "0-1, each" in text or ("\n0 " in text and "\n1 " in text)
    assert "LOWER BOUND" not in text and "≥" not in text


def test_what_is_unknown_cannot_be_missed():
    text = to_text(llmjax.analyze_hlo(UNKNOWN), 80)
    flat = " ".join(text.replace("│", " ").split())
    assert "LOWER BOUND: the trip count of w.1 is unknown" in flat
    assert "--config.trip_counts.w.1=N" in flat
    assert "1 op is unmodelled" in flat and "mystery" in flat
    assert "≥ 128 FLOP" in flat
    assert max(map(len, text.splitlines())) <= 80


def test_given_trip_counts_multiply():
    report = llmjax.analyze_hlo(UNKNOWN, trip_counts={"w.1": 5})
    assert report.totals.matmul_flops == 5 * 2 * 4**3
    assert "w.1 x5 (given)" in to_text(report, 80)
    with pytest.raises(UserError, match=r"w\.1"):
        llmjax.analyze_hlo(UNKNOWN, trip_counts={"w.2": 5})


NUMBER = (int, float)
PLACE = {
    "module_path": (str, type(None)),
    "role": str,
    "layer": (int, type(None)),
    "pass": str,
    "source": (str, type(None)),
    "function": (str, type(None)),
}
OP = {
    "name": str,
    "opcode": str,
    "computation": str,
    "count": NUMBER,
    **dict.fromkeys(FIGURES, NUMBER),
    **PLACE,
    "library": (str, type(None)),
    "unmodelled": (str, type(None)),
    "dense_flops": (*NUMBER, type(None)),
    "fused": list,
}
REPORT = {
    "schema": str,
    "module": str,
    "backend": (str, type(None)),
    "totals": dict,
    "verdict": dict,
    "compiler": (dict, type(None)),
    "coverage": float,
    "lower_bound": bool,
    "upper_bound": bool,
    "stage": dict,
    "unmodelled": list,
    "loops": list,
    "conditionals": list,
    "ops": list,
    **dict.fromkeys(("by_role", "by_layer", "by_module_path", "by_source", "by_pass", "by_opcode"), list),
}


# There only where they are known.
SOMETIMES = {"target": str, "device": dict, "compiler_cycles": NUMBER, "compiler_model": str}


def check(found, schema):
    known = schema | {name: kind for name, kind in SOMETIMES.items() if name in found}
    assert set(found) == set(known)
    for name, kind in known.items():
        assert isinstance(found[name], kind), (name, found[name])


@pytest.mark.parametrize("text", [*FIXTURES, UNKNOWN])
def test_json_has_the_schema_and_adds_up(text):
    report = llmjax.analyze_hlo(text if "\n" in text else HLO / text)
    found = json.loads(report.to_json())
    check(found, REPORT)
    assert found["schema"] == SCHEMA
    for op in found["ops"]:
        check(op, OP)
        for part in op["fused"]:
            check(part, {"name": str, "opcode": str, **dict.fromkeys(FIGURES, NUMBER), **PLACE})
        if op["fused"]:
            assert {name: sum(part[name] for part in op["fused"]) for name in FIGURES} == {n: op[n] for n in FIGURES}
    for rows in [found["ops"], *(found[name] for name in REPORT if name.startswith("by_"))]:
        assert {name: sum(row[name] for row in rows) for name in FIGURES} == found["totals"]
    assert found["totals"]["flops"] == found["totals"]["matmul_flops"] + found["totals"]["vector_flops"]


def test_the_schema_is_documented(repo):
    text = (repo / "docs" / "cost-json.md").read_text()
    for name in {*REPORT, *OP, *FIGURES, *SOMETIMES}:
        assert f"`{name}`" in text, name
    assert SCHEMA in text


def test_target_device_and_the_compilers_cycles():
    report = llmjax.analyze_hlo(HLO / "tpu_block_bf16.hlo")
    named = dataclasses.replace(report, target="tpu:v5e:2x2", device=load_device("tpu:v5e:2x2"))
    found = json.loads(named.to_json())
    assert (found["target"], found["device"]["name"]) == ("tpu:v5e:2x2", "tpu:v5e")
    assert found["device"]["memory"][-1]["capacity"]["source"]
    cycles = {op["name"]: op["compiler_cycles"] for op in found["ops"] if "compiler_cycles" in op}
    assert cycles["convert_reduce_fusion.7"] == 1868
    assert {op.get("compiler_model") for op in found["ops"]} == {None, "estimated_cycles"}


def test_json_names_what_is_unknown():
    found = json.loads(llmjax.analyze_hlo(UNKNOWN).to_json())
    assert found["lower_bound"] is True
    assert found["coverage"] < 1
    assert [(op["name"], op["target"]) for op in found["unmodelled"]] == [("n", "mystery")]
    assert found["loops"] == [{"name": "w.1", "trip_count": None, "from": "unknown", "count": 1}]


def test_csv_has_a_line_an_op():
    report = llmjax.analyze_hlo(HLO / FIXTURES[0])
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(rows) == len(report.ops)
    assert sum(int(row["flops"]) for row in rows) == report.totals.flops
    times = {"seconds", "low", "high", "cycles", "bound", "measured_seconds", "measured_cycles"}
    assert set(rows[0]) == set(OP) - {"fused"} | times


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_runs_no_formula_in_a_spreadsheet(start):
    owner = f'op_name="{start}HYPERLINK(1)/neg" source_file="{start}x.py" source_line=1'
    text = f"""HloModule m
ENTRY %e (p: f32[4]) -> f32[4] {{
  %p = f32[4]{{0}} parameter(0)
  ROOT %n = f32[4]{{0}} negate(f32[4]{{0}} %p), metadata={{{owner}}}
}}
"""
    report = llmjax.analyze_hlo(text)
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert any(f"'{start}" in cell for row in rows for cell in row.values())
    assert not any(cell.startswith(start) for row in rows for cell in row.values())


def test_pandas(monkeypatch):
    report = llmjax.analyze_hlo(HLO / FIXTURES[0])
    pandas = pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["bytes_read"].sum() == report.totals.bytes_read
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        report.to_pandas()


def test_repr_and_html():
    report = llmjax.analyze_hlo(UNKNOWN.replace("w.1", "w_1").replace('"mystery"', '"<b>&"'))
    assert "by role" in repr(report)
    html = report._repr_html_()
    assert "LOWER BOUND" in html and "&lt;b&gt;&amp;" in html and '<b>&"' not in html
    assert html.count("<table") == html.count("</table>") == 2


def test_by_refuses_what_is_no_key():
    with pytest.raises(UserError, match="Did you mean 'layer'"):
        llmjax.analyze_hlo(UNKNOWN).by("layers")


def test_backends_are_told_from_the_text():
    for name in FIXTURES:
        if "unoptimised" not in name and "sharded" not in name:
            assert llmjax.analyze_hlo(HLO / name).backend in (name.partition("_")[0], None), name
    assert llmjax.analyze_hlo(HLO / "tpu_block_f32.hlo").backend == "tpu"
    assert llmjax.analyze_hlo(HLO / "gpu_block_f32.hlo").backend == "gpu"
    assert llmjax.analyze_hlo(HLO / "cpu_0.12.0.1_block_f32.hlo").backend == "cpu"


def test_figures_of_the_compiler():
    assert compiler_totals({"flops": 3.0, "bytes accessed": 7.0, "utilization0{}": 1.0}) == {
        "flops": 3.0,
        "bytes": 7.0,
    }
    assert compiler_totals([{"flops": -1.0, "transcendentals": 2.0}]) == {"transcendentals": 2.0}
    assert compiler_totals(None) is compiler_totals([]) is compiler_totals({}) is None


AT_MOST = """HloModule m
body { s = (s32[], f32[8]) parameter(0) i = s32[] get-tuple-element(s), index=0 o = s32[] constant(1)
  n = s32[] add(i, o) x = f32[8] get-tuple-element(s), index=1 y = f32[8] negate(x) ROOT t = (s32[], f32[8]) tuple(n, y) }
cond { s = (s32[], f32[8]) parameter(0) i = s32[] get-tuple-element(s), index=0 m = s32[] constant(50)
  c = pred[] compare(i, m), direction=LT x = f32[8] get-tuple-element(s), index=1 d = pred[] custom-call(x), custom_call_target="done"
  ROOT b = pred[] and(c, d) }
ENTRY e { x = f32[8] parameter(0) z = s32[] constant(0) t = (s32[], f32[8]) tuple(z, x) ROOT w = (s32[], f32[8]) while(t), condition=cond, body=body }
"""  # noqa: E501
NO_CALL = AT_MOST.replace('custom-call(x), custom_call_target="done"', "compare(x, x), direction=GT")
WHOLE = """HloModule m, num_partitions=8
ENTRY e {
  a = f32[1024,512] parameter(0), sharding={devices=[8,1]<=[8]}
  b = f32[512,256] parameter(1), sharding={replicated}
  ROOT d = f32[1024,256] dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


@pytest.mark.parametrize(("text", "mark"), [(NO_CALL, "≤ "), (AT_MOST, "~ ")])
def test_a_loop_that_may_end_early_is_an_upper_bound_everywhere(text, mark):
    report = llmjax.analyze_hlo(text)
    flat = " ".join(to_text(report, 120).split())
    assert "UPPER BOUND: w may end before the last iteration" in flat
    assert f"{mark}{short(report.totals.flops, 'FLOP')}" in flat and "w x50 (at most)" in flat
    cost = json.loads(report.to_json())
    assert cost["upper_bound"] is True and cost["loops"][0]["from"] == "bounded"
    assert any("UPPER BOUND" in warning.sentence for warning in warnings(cost))
    assert all(line.value.startswith(mark) for line in headlines(cost) if line.label in ("FLOPs", "bytes moved"))
    given = llmjax.analyze_hlo(text, trip_counts={"w": 3})
    assert "UPPER BOUND" not in to_text(given, 120) and "≤" not in to_text(given, 120)


def test_a_whole_program_is_said_to_be_one_and_shared_out():
    report = llmjax.analyze_hlo(WHOLE)
    flat = " ".join(to_text(report, 80).split())
    assert "one execution, 8 devices" in flat and "WHOLE PROGRAM" in flat
    assert "FLOPs 268 MFLOP ≥ 33.6 MFLOP" in flat
    cost = json.loads(report.to_json())
    assert cost["stage"] == {"name": "whole", "devices": 8, "manual": False}
    assert cost["totals"]["flops"] / cost["stage"]["devices"] == 2 * 128 * 512 * 256
    assert "WHOLE PROGRAM" in warnings(cost)[0].sentence
