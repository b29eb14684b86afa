"""The ops of a cost.json as the compact columns that the HTML report's scripts read."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmjax.report.colours import role_colours
from llmjax.report.remarks import Json

METRICS = ("flops", "bytes", "cycles", "measured", "compiler")
OTHER_BYTES = ("collective_bytes", "on_chip_bytes", "host_bytes")  # outside main memory
NUMBERS = (
    *("count", "flops", "matmul_flops", "transcendentals"),
    *("bytes_read", "bytes_written", *OTHER_BYTES),
)
TIMES = ("seconds", "cycles", "low", "high", "compiler_cycles", "measured_seconds", "measured_cycles")
_STRINGS = (
    *("name", "opcode", "computation", "module_path", "role", "pass"),
    *("source", "function", "library", "unmodelled", "bound", "compiler_model"),
)
_PART_STRINGS = ("name", "opcode", "module_path", "source")
_PART_NUMBERS = ("flops", "transcendentals", "bytes_read", "bytes_written")
_HEADER = re.compile(r"^(?:ENTRY\s+)?%?([^\s(={]+)\s*(?:\(.*)?\{\s*$")


def metric_of(row: Json, metric: str) -> float | None:
    """The value of a row of cost.json by a metric of METRICS or OTHER_BYTES; None where the row does not have it.

    "cycles" is the prediction and "measured" the measurement: in cycles where the row has them, else in seconds.
    """
    if metric == "bytes":
        return row["bytes_read"] + row["bytes_written"]
    if metric in OTHER_BYTES:
        return row.get(metric, 0)
    if metric in ("flops", "compiler"):
        return row.get("flops" if metric == "flops" else "compiler_cycles")
    names = ("cycles", "seconds") if metric == "cycles" else ("measured_cycles", "measured_seconds")
    return next((row[name] for name in names if row.get(name) is not None), None)


def units(ops: Sequence[Json]) -> dict[str, str]:
    """The unit of each metric that any op has: "FLOP", "B", "cycles", or "s" of times without cycles."""
    found = {"flops": "FLOP", "bytes": "B"}
    for metric, cycles, seconds in (
        ("cycles", "cycles", "seconds"),
        ("measured", "measured_cycles", "measured_seconds"),
        ("compiler", "compiler_cycles", ""),
    ):
        if any(op.get(cycles) is not None for op in ops):
            found[metric] = "cycles"
        elif seconds and any(op.get(seconds) is not None for op in ops):
            found[metric] = "s"
    return found


class _Strings:
    """A table of texts, each stored once."""

    def __init__(self) -> None:
        self.index: dict[str | None, int] = {}

    def __call__(self, text: str | None) -> int:
        return self.index.setdefault(text, len(self.index))

    @property
    def table(self) -> list[str | None]:
        return list(self.index)


def payload(cost: Json, hlo: str) -> dict[str, Any]:
    """What the scripts need of one program: a table of strings, a column a field, module paths as a tree, the HLO."""
    strings, ops = _Strings(), cost["ops"]
    columns: dict[str, list[Any]] = {name: [strings(op.get(name)) for op in ops] for name in _STRINGS}
    columns |= {name: [op[name] for op in ops] for name in NUMBERS}
    columns["layer"] = [op["layer"] for op in ops]
    # Six digits say more than any prediction or clock knows, and keep the file small.
    columns |= {
        name: [_digits(op.get(name)) for op in ops] for name in TIMES if any(op.get(name) is not None for op in ops)
    }
    if any(op.get("breakdown") for op in ops):
        columns["breakdown"] = [_terms(op.get("breakdown")) for op in ops]
    fused = [
        [[strings(part.get(n)) for n in _PART_STRINGS] + [part[n] for n in _PART_NUMBERS] for part in op["fused"]]
        for op in ops
    ]
    text = computations(hlo)
    return {
        "n": len(ops),
        "columns": columns,
        "fused": fused,
        "strings": strings.table,
        "units": units(ops),
        "tree": tree(cost),
        "device": cost.get("device"),
        "memory": cost.get("memory"),
        "dtypes": dtypes(hlo),
        "hlo": packed({name: "\n".join(lines) for name, lines in text.items()}) if text else None,
        "rows": {key: _rows(cost, key) for key in ("role", "layer")},
        "colours": role_colours(row["role"] for row in cost["by_role"]),
    }


def computations(hlo: str) -> dict[str, list[str]]:
    """The lines of each computation of HLO text, without the module's header and tables."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in hlo.splitlines():
        header = None if line[:1].isspace() else _HEADER.match(line)
        if header and not line.startswith("HloModule"):
            lines = found.setdefault(header[1], [])
        if lines is not None:
            lines.append(line)
        if line.startswith("}"):
            lines = None
    return found


def packed(value: Any) -> str:
    """Returns `value` as JSON, gzipped, in base64: HLO text repeats itself, and shrinks to a tenth."""
    return base64.b64encode(gzip.compress(json.dumps(value).encode(), mtime=0)).decode()


def dtypes(hlo: str) -> list[str]:
    """The element types that the text names, for the peaks that matter to it."""
    return sorted(set(re.findall(r"\b(f64|f32|bf16|f16|f8\w*|s8|u8|s4|u4)\[", hlo)))


def tree(cost: Json) -> list[dict[str, Any]]:
    """The module paths as nodes `id`, `parent`, `label`, `role`, `ops` and a value a metric, in order of the program,
    but those that differ in a number in order of that (h_2 before h_10, wherever XLA put their ops).

    The values are a node's own, without its children's; a parent stands before its children. FLOPs and bytes are those
    of the parts of fused ops, each where it belongs; a time is that of the whole op, and stands where most of it does.
    """
    nodes: dict[str, dict[str, Any]] = {}
    label = cost["module"] or "module"
    metrics = list(units(cost["ops"]))
    order = {op["module_path"] or "unattributed": None for op in cost["ops"]}
    rows = {row["module_path"]: row for row in cost["by_module_path"]}
    roles = _role_of_path(cost["ops"])
    order |= dict.fromkeys(rows)
    for path in order:
        own = {metric: metric_of(rows[path], metric) or 0 for metric in metrics} if path in rows else {}
        steps = path.split("/")
        for depth in range(len(steps) + 1):
            parent = "/".join(steps[: depth - 1]) if depth else None
            node = {"id": "/".join(steps[:depth]), "parent": parent, "label": steps[depth - 1] if depth else label}
            nodes.setdefault(node["id"], node | {"role": None, "ops": 0} | dict.fromkeys(metrics, 0))
        values = {metric: _digits(value) if metric in metrics[2:] else value for metric, value in own.items()}
        nodes[path] |= values | {"role": roles.get(path), "ops": rows[path]["ops"] if path in rows else 0}
    children: dict[str, list[str]] = {}
    for node in nodes.values():
        if node["parent"] is not None:
            children.setdefault(node["parent"], []).append(node["id"])
    found, stack = [], [""] if nodes else []
    while stack:
        found.append(nodes[stack.pop()])
        stack += reversed(by_number(children.get(found[-1]["id"], [])))
    return found


def by_number(names: Sequence[str]) -> list[str]:
    """Returns names in their order, but those that differ only in the number at their end in that of their numbers."""

    def split(name: str) -> tuple[str, int] | None:
        found = re.fullmatch(r"(.*?)(\d+)", name)
        return (found[1], int(found[2])) if found else None

    numbers: dict[str, list[int]] = {}
    for name in names:
        if (parts := split(name)) is not None:
            numbers.setdefault(parts[0], []).append(parts[1])
    waiting = {stem: iter(sorted(found)) for stem, found in numbers.items()}
    return [name if (parts := split(name)) is None else f"{parts[0]}{next(waiting[parts[0]])}" for name in names]


def _role_of_path(ops: Iterable[Json]) -> dict[str, str]:
    """The role of most bytes under each module path."""
    weights: dict[str, dict[str, float]] = {}
    for op in ops:
        for part in op["fused"] or [op]:
            sums = weights.setdefault(part["module_path"] or "unattributed", {})
            sums[part["role"]] = sums.get(part["role"], 0) + part["bytes_read"] + part["bytes_written"] + part["flops"]
    return {path: max(sums, key=lambda role: sums[role]) for path, sums in weights.items()}


def _rows(cost: Json, key: str) -> list[dict[str, Any]]:
    """The rows of `by_role` or `by_layer` with a value a metric."""
    metrics = list(units(cost["ops"]))
    return [
        {"name": str(row[key]), "ops": row["ops"]} | {metric: metric_of(row, metric) or 0 for metric in metrics}
        for row in cost[f"by_{key}"]
    ]


def _terms(terms: Json | None) -> list[list[Any]] | None:
    """{"compute": s, "memory": {LEVEL: s}, ...} as [[name, s], ...], a memory level as "memory:LEVEL"."""
    if not terms:
        return None
    flat: list[list[Any]] = []
    for name, value in terms.items():
        if isinstance(value, Mapping):
            flat += [[f"{name}:{level}", _digits(seconds)] for level, seconds in value.items()]
        elif isinstance(value, int | float):
            flat.append([name, _digits(value)])
    return flat


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
