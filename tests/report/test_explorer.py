"""Files for Model Explorer: a graph of ops by module path, and overlays of what each costs."""

import json

import pytest

import llmjax
from llmjax.errors import UserError
from llmjax.report.explorer import to_graph, to_node_data
from tests.conftest import ROOT

MOE = ROOT / "tests/testdata/frameworks/linen_moe.hlo"
TEXT = """HloModule m
ENTRY e {
  p = f32[4,8] parameter(0), metadata={op_name="params['h_0']['attn']['kernel']"}
  x = f32[8,4] parameter(1), metadata={op_name="x"}
  b = f32[8,4] bitcast(p)
  s = f32[8,4] add(b, x), metadata={op_name="jit(f)/Net/h_0/add"}
  t = (f32[8,4], f32[8,4]) tuple(s, x)
  g = f32[8,4] get-tuple-element(t), index=0
  ROOT y = f32[8,4] multiply(g, s), metadata={op_name="jit(f)/Net/mul"}
}
"""


def test_edges_go_from_op_to_op_through_what_costs_nothing():
    (graph,) = json.loads(to_graph(llmjax.analyze_hlo(TEXT)))
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert set(nodes) == {"p", "x", "s", "y"}
    sources = {name: [edge["sourceNodeId"] for edge in node.get("incomingEdges", [])] for name, node in nodes.items()}
    assert sources == {"p": [], "x": [], "s": ["p", "x"], "y": ["s", "x"]}
    assert (nodes["s"]["namespace"], nodes["y"]["namespace"]) == ("Net/h_0", "Net")
    assert (nodes["p"]["namespace"], nodes["p"]["label"]) == ("arguments/h_0/attn", "kernel")
    assert (nodes["x"]["namespace"], nodes["x"]["label"]) == ("arguments", "x")


def test_every_edge_and_figure_is_of_a_node_of_the_graph():
    report = llmjax.analyze_hlo(MOE, card="gpu:a100")
    (graph,) = json.loads(to_graph(report))
    ids = [node["id"] for node in graph["nodes"]]
    assert len(ids) == len(set(ids)) == len(report.ops) + len(report.cost.module.entry.parameters)
    edges = [edge for node in graph["nodes"] for edge in node.get("incomingEdges", [])]
    assert edges and {edge["sourceNodeId"] for edge in edges} <= set(ids)
    overlays = {name: json.loads(text)[graph["id"]] for name, text in to_node_data(report).items()}
    assert set(overlays) == {"seconds", "cycles", "flops", "bytes", "bound", "role"}
    for overlay in overlays.values():
        assert set(overlay["results"]) <= set(ids)
    microseconds = sum(result["value"] for result in overlays["seconds"]["results"].values())
    assert microseconds == pytest.approx(1e6 * (report.time.sequential - report.time.dispatch), rel=1e-4)
    assert sum(result["value"] for result in overlays["flops"]["results"].values()) == report.totals.flops
    assert {result["value"] for result in overlays["bound"]["results"].values()} <= {
        "overhead",
        "compute",
        "memory:HBM",
    }


def test_without_a_chip_there_are_counts_alone():
    assert set(to_node_data(llmjax.analyze_hlo(TEXT))) == {"flops", "bytes", "role"}


def test_the_report_writes_them(tmp_path):
    paths = llmjax.analyze_hlo(TEXT).save_model_explorer(tmp_path / "me")
    assert [path.name for path in paths] == ["graph.json", "flops.json", "bytes.json", "role.json"]
    assert all(json.loads(path.read_text()) for path in paths)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write there"):
        llmjax.analyze_hlo(TEXT).save_model_explorer(tmp_path / "file" / "me")
    with pytest.raises(UserError, match="cannot write there"):
        llmjax.analyze_hlo(TEXT).save_html(tmp_path / "file" / "page.html")
