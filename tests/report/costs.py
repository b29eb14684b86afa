"""cost.json objects for the tests of reports: of a fixture, hostile ones, with made-up times, of any number of ops."""

import copy
import json
from pathlib import Path
from typing import Any

import llmjax

HLO = Path(__file__).parent.parent / "testdata" / "hlo"
BLOCK = "cpu_0.12.0.1_block_f32.hlo"
HOSTILE = """<img src=x onerror="alert('1')">&amp;</script><script>document.title='broken'</script>"""


def text_of(name: str = BLOCK) -> str:
    return (HLO / name).read_text()


def cost_of(text: str) -> dict[str, Any]:
    """The cost.json of HLO text."""
    return json.loads(llmjax.analyze_hlo(text).to_json())


def figure(value: float, provenance: str = "measured") -> dict[str, Any]:
    return {"value": value, "provenance": provenance, "source": "made up for the test"}


DEVICE = {
    "name": "toy",
    "title": "a toy chip",
    "kind": "cpu",
    "clock_hz": figure(2e9, "datasheet"),
    "cores": figure(2, "datasheet"),
    "matmul": {"f32": figure(1e11), "bf16": figure(2e11)},
    "vector": {"f32": figure(5e10)},
    "transcendental": figure(1e9),
    "memory": [
        {"name": "L2", "capacity": figure(1e6, "datasheet"), "bandwidth": figure(1e11)},
        {"name": "DRAM", "capacity": figure(1e10, "datasheet"), "bandwidth": figure(2e10)},
    ],
    "launch": figure(1e-6),
}


def timed(cost: dict[str, Any], predicted: bool = True, measured: bool = True) -> dict[str, Any]:
    """A copy with a device and times by the simplest roofline: the k-th op predicted k % 5 x 10% too high."""
    found = copy.deepcopy(cost)
    for k, op in enumerate(found["ops"]):
        moved = op["bytes_read"] + op["bytes_written"]
        terms = {"compute": op["flops"] / 1e11, "memory": {"DRAM": moved / 2e10}, "overhead": 1e-6}
        seconds = max(terms["compute"], terms["memory"]["DRAM"]) + 1e-6
        if predicted:
            high = seconds * (1 + 0.1 * (k % 5))
            op |= {"seconds": high, "cycles": high * 2e9, "low": 0.9 * high, "high": 1.1 * high}
            op |= {"bound": "memory:DRAM", "breakdown": terms}
        if measured:
            op |= {"measured_seconds": seconds, "measured_cycles": seconds * 2e9}
    found["device"] = DEVICE
    found["time"] = {"measured": 1e-3} if measured else {}
    if predicted:
        found["time"] |= {"sequential": 1.2e-3, "overlapped": 1.1e-3, "low": 1e-3, "high": 1.3e-3}
    for key in ("role", "layer", "module_path"):
        for row in found[f"by_{key}"]:
            mine = [op for op in found["ops"] if row_of(op, key) == row[key]]
            for field in ("seconds", "cycles", "measured_seconds", "measured_cycles"):
                if any(field in op for op in found["ops"]):
                    row[field] = sum(op[field] for op in mine)
    return found


def row_of(op: dict[str, Any], key: str) -> Any:
    """The row of a breakdown that an op's own place is of."""
    if op[key] is None:
        return "no layer" if key == "layer" and op["module_path"] else "unattributed"
    return op[key]


def many(ops: int) -> str:
    """HLO text of a chain of so many additions, in 40 layers."""
    lines = ["HloModule many", "ENTRY e {", "  add.0 = f32[64]{0} parameter(0)"]
    for k in range(1, ops + 1):
        place = f'metadata={{op_name="jit(f)/Net/h_{k * 40 // (ops + 1)}/mlp/add"}}'
        root = "ROOT " if k == ops else ""
        lines.append(f"  {root}add.{k} = f32[64]{{0}} add(add.{k - 1}, add.{k - 1}), {place}")
    return "\n".join([*lines, "}", ""])


def hostile() -> dict[str, Any]:
    """A cost.json whose every string from a program is markup."""
    cost = timed(cost_of(text_of()))
    cost |= {"module": HOSTILE, "lower_bound": True, "target": HOSTILE}
    op = cost["ops"][0]
    op |= {"name": HOSTILE, "opcode": HOSTILE, "computation": HOSTILE, "module_path": HOSTILE, "role": HOSTILE}
    op |= {"source": f"{HOSTILE}:1", "function": HOSTILE, "library": HOSTILE, "unmodelled": HOSTILE, "bound": HOSTILE}
    cost["by_role"].append(cost["by_role"][0] | {"role": HOSTILE})
    cost["by_module_path"].append(cost["by_module_path"][0] | {"module_path": HOSTILE})
    cost["unmodelled"] = [
        {"name": HOSTILE, "opcode": HOSTILE, "target": HOSTILE, "reason": HOSTILE, "count": 1, "bytes": 8}
    ]
    cost["loops"] = [{"name": HOSTILE, "trip_count": None, "from": "unknown", "count": 1}]
    cost["conditionals"] = [{"name": HOSTILE, "branches": ["a", "b"], "weights": [0, 1], "stated": False}]
    return cost
