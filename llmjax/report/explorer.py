"""An analysis for Model Explorer: the ops as a graph nested by module path, and overlays of what each costs.

Formats: the JSON that ai-edge-model-explorer 0.1.34 reads as a graph (its `graph_builder`) and as node data (its
`node_data_builder`), one file of node data an overlay. Ids of nodes are the names of ops.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmjax.cost.attribution import AttributedOp
from llmjax.cost.paths import argument_path
from llmjax.hlo.ir import Computation, Instruction
from llmjax.report.export import times

if TYPE_CHECKING:
    from llmjax.analysis import Analysis

ARGUMENTS = "arguments"  # the group of the program's parameters
_HOPS = 64  # so far an operand is followed through what costs nothing
_GRADIENT = [
    {"stop": 0, "bgColor": "#ffffff", "textColor": "#1d2129"},
    {"stop": 0.5, "bgColor": "#f5b041", "textColor": "#1d2129"},
    {"stop": 1, "bgColor": "#b3261e", "textColor": "#ffffff"},
]
# The title of each overlay that is a number, by its name.
_OVERLAYS = {
    "seconds": "predicted µs",
    "measured_seconds": "measured µs",
    "cycles": "predicted cycles",
    "flops": "FLOPs",
    "bytes": "bytes",
}


def to_graph(report: Analysis) -> str:
    """Returns the graph: a node an op and an argument, an edge where one reads what another made."""
    module = report.cost.module
    nodes = [_argument(parameter) for parameter in module.entry.parameters]
    known = {op.name for op in report.ops}
    for op in report.ops:
        nodes.append(_node(report, op, _sources(op, module.computations[op.op.computation], known)))
    return _text([{"id": _graph_id(report), "nodes": nodes}])


def to_node_data(report: Analysis) -> dict[str, str]:
    """Returns the overlays by name ("seconds", "measured_seconds", "cycles", "flops", "bytes", "bound", "role"), those
    that the analysis has figures for: files of node data for `model-explorer --node_data_paths`."""
    found: dict[str, dict[str, Any]] = {name: {} for name in (*_OVERLAYS, "bound", "role")}
    for op in report.ops:
        values = times(report, op.name)
        values |= {"flops": op.total.flops, "bytes": op.total.memory_bytes, "role": op.place.role}
        for name, results in found.items():
            if values.get(name) is not None:
                scale = 1e6 if name.endswith("seconds") else 1
                value = values[name] if isinstance(values[name], str) else float(f"{values[name] * scale:.6g}")
                results[op.name] = {"value": value}
    return {name: _text({_graph_id(report): _overlay(name, results)}) for name, results in found.items() if results}


def _overlay(name: str, results: Mapping[str, Any]) -> dict[str, Any]:
    title = _OVERLAYS.get(name)
    looks = {"gradient": _GRADIENT} if title else {"hideInAggregatedStatsTable": True}
    return {"name": title or name, "results": results, **looks}


def _graph_id(report: Analysis) -> str:
    return report.name or "module"


def _argument(parameter: Instruction) -> dict[str, Any]:
    """A node of a parameter, grouped by the keys of its name: `params['h_0']['bias']` is `bias` in arguments/h_0."""
    name = parameter.metadata.op_name or parameter.name
    path = argument_path(name)
    return {
        "id": parameter.name,
        "label": re.findall(r"[\w\-]+", name)[-1] if path else name,
        "namespace": f"{ARGUMENTS}/{path}" if path else ARGUMENTS,
        "outputsMetadata": [_metadata(parameter)],
    }


def _node(report: Analysis, op: AttributedOp, sources: list[str]) -> dict[str, Any]:
    told = {
        "role": op.place.role,
        "source": op.place.source,
        "computation": op.op.computation,
        "runs": f"{op.count:,}",
        "FLOPs": f"{op.total.flops:,}",
        "bytes": f"{op.total.memory_bytes:,}",
        "library": op.op.library or "",
        "unmodelled": op.op.unmodelled,
    }
    values = times(report, op.name)
    told |= {name: f"{values[name]:.4g}" for name in ("seconds", "cycles", "measured_seconds") if name in values}
    told |= {"bound": values["bound"]} if "bound" in values else {}
    return {
        "id": op.name,
        "label": op.opcode,
        "namespace": op.place.module_path or "unattributed",
        "attrs": [{"key": key, "value": value} for key, value in {"name": op.name, **told}.items() if value],
        "incomingEdges": [
            {"sourceNodeId": source, "sourceNodeOutputId": "0", "targetNodeInputId": str(k)}
            for k, source in enumerate(sources)
        ],
        "outputsMetadata": [_metadata(op.op.instruction)],
    }


def _metadata(i: Instruction) -> dict[str, Any]:
    shape = str(i.shape)
    return {"id": "0", "attrs": [{"key": "__tensor_tag", "value": i.name}, {"key": "shape", "value": shape}]}


def _sources(op: AttributedOp, computation: Computation, known: set[str]) -> list[str]:
    """The ops and arguments whose results an op reads, through what costs nothing (bitcasts, tuples), each once."""
    found: dict[str, None] = {}
    stack = [(name, 0) for name in reversed(op.op.instruction.operands)]
    seen = set()
    while stack:
        name, hops = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        i = computation.by_name.get(name)
        if i is None or hops > _HOPS:
            continue
        if name in known or i.opcode == "parameter":
            found[name] = None
        else:
            stack += [(operand, hops + 1) for operand in reversed(i.operands)]
    return list(found)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"
