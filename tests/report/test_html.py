"""The HTML report as text: what it says, what it holds, and that nothing a program names is ever markup."""

import base64
import gzip
import json
import re

import pytest

from llmjax.report.colours import role_colours
from llmjax.report.headlines import device_rows, headlines
from llmjax.report.html import Program, script_json, to_html
from llmjax.report.html_ops import by_number, computations, dtypes, metric_of, payload, tree, units
from llmjax.report.provenance import PROVENANCE
from llmjax.report.remarks import notes, warnings
from tests.report.costs import DEVICE, HLO, HOSTILE, cost_of, hostile, many, text_of, timed

FIXTURES = sorted(path.name for path in HLO.glob("*.hlo"))
TEXT = text_of()
COST = cost_of(TEXT)


def data_of(page):
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


@pytest.mark.parametrize("name", FIXTURES)
def test_any_backend_becomes_a_page(name):
    text = text_of(name)
    cost = cost_of(text)
    (data,) = data_of(to_html([Program("x", cost, text)]))
    assert data["n"] == len(cost["ops"])
    assert sum(node["flops"] for node in data["tree"]) == cost["totals"]["flops"]
    moved = cost["totals"]["bytes_read"] + cost["totals"]["bytes_written"]
    assert sum(node["bytes"] for node in data["tree"]) == moved
    assert sum(row["bytes"] for row in data["rows"]["layer"]) == moved


def test_the_page_needs_no_network():
    page = to_html([Program("x", COST, TEXT)])
    assert "default-src 'none'" in page
    own = re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.DOTALL)  # plotly.js names addresses it never fetches
    assert len(own) < len(page) - 4_000_000
    assert not re.search(r"https?:|<link|@import|url\(", own)
    assert len(page.encode()) < 6_000_000


def test_markup_in_names_stays_text():
    page = to_html([Program(HOSTILE, hostile(), TEXT + f"\n// {HOSTILE}", HOSTILE)], HOSTILE)
    assert "<img" not in page.replace("<image", "")
    assert "document.title='broken'</script>" not in page and "<script>document.title" not in page
    (data,) = data_of(page)
    assert HOSTILE in data["strings"]
    assert "&lt;img src=x" in page


def test_script_json_survives_every_ending():
    hard = {"a": "</script><!--<script>&\u2028\u2029", "b": [1.5, None, True]}
    text = script_json(hard)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == hard


def test_a_tab_a_program():
    two = to_html([Program("prefill", COST, TEXT), Program("decode", timed(COST), TEXT)])
    assert re.findall(r'role="tab".*?>(\w+)</button>', two) == ["prefill", "decode"]
    assert len(data_of(two)) == 2
    assert 'role="tab"' not in to_html([Program("prefill", COST, TEXT)])


def test_headlines_say_what_they_are():
    kinds = {h.label: h.kind for h in headlines(timed(COST))}
    assert kinds["FLOPs"] == kinds["bytes moved"] == "counted"
    assert kinds["predicted time"] == kinds["predicted cycles"] == "modelled"
    assert kinds["measured time"] == kinds["measured cycles"] == "measured"
    assert set(kinds.values()) <= set(PROVENANCE)
    values = {h.label: h for h in headlines(timed(COST))}
    assert (
        values["predicted time"].value == "1.10 ms" and "between 1.00 ms and 1.30 ms" in values["predicted time"].note
    )
    assert values["measured time"].note == "the prediction is 10.0% high"
    assert not {"predicted time", "measured time", "compiler's cycles"} & {h.label for h in headlines(COST)}


def test_the_compilers_own_cycles_count_only_ops_that_have_them():
    cost = timed(COST, predicted=False, measured=False)
    cost["ops"][0]["compiler_cycles"] = 1000
    cost["ops"][1]["compiler_cycles"] = 500
    (own,) = [h for h in headlines(cost) if h.kind == "compiler"]
    rate = (cost["ops"][0]["flops"] + cost["ops"][1]["flops"]) / 1500
    assert own.value == "1.50 k" and f"of 2 of {len(cost['ops'])} ops" in own.note
    assert (f"{rate:.3g} FLOPs a cycle" in own.note) == (rate > 0)


def test_lower_bounds_cannot_be_missed():
    cost = cost_of(UNKNOWN)
    said = [warning.sentence for warning in warnings(cost)]
    assert any("the trip count of w.1 is unknown" in s and "--config.trip_counts.w.1=N" in s for s in said)
    assert any("1 op is unmodelled" in s for s in said)
    page = to_html([Program("x", cost, UNKNOWN)])
    assert page.count('class="warning" role="alert"') == 2
    assert all(h.value.startswith("≥ ") for h in headlines(cost) if h.label in ("FLOPs", "bytes moved"))
    assert warnings(COST) == []


def test_ops_without_a_prediction_are_told():
    cost = timed(COST)
    for name in ("seconds", "cycles"):
        del cost["ops"][3][name]
    assert f"1 of {len(cost['ops'])} ops have no predicted time" in warnings(cost)[0].sentence


def test_notes_name_loops_branches_and_libraries():
    cost = COST | {
        "loops": [{"name": "w", "trip_count": 7, "from": "known_trip_count", "count": 1}],
        "conditionals": [{"name": "c", "branches": ["a", "b"], "weights": [0, 1], "stated": False}],
    }
    said = " ".join(notes(cost))
    assert "w x7 (known trip count)" in said and "Of c the most expensive branch" in said and "ynnpack" in said


def test_the_device_tells_its_sources():
    rows = device_rows(DEVICE)
    assert ("DRAM bandwidth", "20.0 GB/s", "measured", "made up for the test") in rows
    assert ("time between two ops", "1.00 µs", "measured", "made up for the test") in rows
    assert device_rows(None) == []


def test_metrics_take_cycles_before_seconds():
    op = COST["ops"][0]
    assert metric_of(op, "cycles") is None and metric_of(op, "measured") is None
    assert metric_of(op | {"seconds": 2.0}, "cycles") == 2.0
    assert metric_of(op | {"seconds": 2.0, "cycles": 0}, "cycles") == 0
    assert units(COST["ops"]) == {"flops": "FLOP", "bytes": "B"}
    assert units([op | {"measured_seconds": 1.0}])["measured"] == "s"
    assert units(timed(COST)["ops"])["measured"] == "cycles"


def test_times_stand_in_the_tree_once():
    cost = timed(COST)
    nodes = tree(cost)
    places = {node["id"]: k for k, node in enumerate(nodes)}
    assert all(node["parent"] is None or places[node["parent"]] < k for k, node in enumerate(nodes))
    for metric, field in (("cycles", "cycles"), ("measured", "measured_cycles")):
        assert sum(node[metric] for node in nodes) == pytest.approx(sum(op[field] for op in cost["ops"]), rel=1e-5)
        for key in ("role", "layer"):
            rows = payload(cost, "")["rows"][key]
            assert sum(row[metric] for row in rows) == pytest.approx(sum(op[field] for op in cost["ops"]), rel=1e-5)


def test_roles_have_one_colour_each_on_every_page():
    many_roles = role_colours(f"role {k}" for k in range(60))
    assert len(set(many_roles.values())) == len(many_roles)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in many_roles.values())
    assert role_colours(["MLP"]).items() <= many_roles.items()
    assert role_colours(["b", "a"]) == role_colours(["a", "b"])
    assert payload(COST, "")["colours"]["MLP"] == many_roles["MLP"]


def test_layers_are_in_order_of_their_numbers_wherever_xla_put_their_ops():
    assert by_number(["h_1", "wte", "h_10", "h_2", "ln_f"]) == ["h_1", "wte", "h_2", "h_10", "ln_f"]
    cost = cost_of(many(400))
    cost["ops"].sort(key=lambda op: str(op["module_path"]))
    nodes = [node["label"] for node in tree(cost) if node["label"].startswith("h_")]
    assert nodes == [f"h_{k}" for k in range(len(nodes))] and len(nodes) > 11


def test_every_op_finds_its_text():
    found = computations(TEXT)
    for op in COST["ops"]:
        lines = [line.strip().removeprefix("ROOT ").removeprefix("%") for line in found[op["computation"]]]
        assert any(line.startswith(f"{op['name']} =") for line in lines), op["name"]
    assert "f32" in dtypes(TEXT) and "HloModule" not in found
    stored = json.loads(gzip.decompress(base64.b64decode(payload(COST, TEXT)["hlo"])))
    assert stored == {name: "\n".join(lines) for name, lines in found.items()}


def test_ten_thousand_ops_stay_small():
    text = many(10_000)
    page = to_html([Program("many", cost_of(text), text)])
    assert data_of(page)[0]["n"] == 10_000
    assert len(page.encode()) < 9_000_000


def test_an_empty_program():
    (data,) = data_of(to_html([Program("x", cost_of("HloModule m\nENTRY e {\n  ROOT p = f32[2] parameter(0)\n}\n"))]))
    assert data["n"] == 0 and data["hlo"] is None


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
