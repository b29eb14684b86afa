"""Which op is meant, which ops are alike, and which function of an object file is its code. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llmjax.cost.attribution import AttributedOp
from llmjax.errors import UserError
from llmjax.hlo.ir import CALL_ATTRIBUTES, Computation, Instruction, Module

# Attributes that say where an instruction stands and not what it computes.
_NAMES = frozenset(
    (*CALL_ATTRIBUTES, "control-predecessors", "frontend_attributes", "sharding", "channel_id", "origin")
)
_NEAREST = 3

# Who runs what has no code of its own, by opcode: XLA:CPU's thunks (xla/backends/cpu/runtime).
RUNTIME: Mapping[str, tuple[str, str]] = {
    "dot": ("eigen", "a matrix product of Eigen's, which XLA calls"),
    "convolution": ("eigen", "a convolution of Eigen's, which XLA calls"),
    "copy": ("xla runtime", "a copy by XLA's runtime: memcpy, or a transposition in blocks"),
    "copy-start": ("xla runtime", "a copy by XLA's runtime, beside other ops"),
    "sort": ("xla runtime", "std::sort in XLA's runtime, which calls a compiled comparison"),
    "topk": ("xla runtime", "a top-k routine of XLA's runtime"),
    "fft": ("ducc", "a Fourier transform of DUCC's, which XLA calls"),
    "custom-call": ("custom call", "a function that is called by its name"),
    "rng-get-and-update-state": ("xla runtime", "the runtime's random state"),
}


def choose(
    module: Module, ops: Sequence[AttributedOp], wanted: str, size: Callable[[AttributedOp], float]
) -> list[AttributedOp]:
    """The ops that `wanted` means, the one to look at first: an op's name, a role, or a module path.

    Of several ops, those that compute the same count together: the group with the largest sum of `size` comes first,
    and of it the op whose size is the median. A path may leave out its beginning ("h_0/mlp"), and `*` stands for a
    layer ("h_*/mlp"); what is in that very module comes before what is in modules inside it.

    Raises:
        UserError: nothing of the program is called so.
    """
    name = wanted.strip().removeprefix("%")
    running = [op for op in ops if op.count]
    tests: tuple[Callable[[AttributedOp], bool], ...] = (
        lambda op: op.name == name,
        lambda op: op.place.role.lower() == name.lower(),
        lambda op: _is_path(op.place.module_path, name, whole=True),
        lambda op: _is_path(op.place.module_path, name, whole=False),
    )
    for test in tests:
        found = [op for op in running if name and test(op)]
        if found:
            return _largest_first(module, found, size)
    roles = sorted({op.place.role for op in running})
    names = [*(op.name for op in running), *roles, *(op.place.module_path for op in running if op.place.module_path)]
    near = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=_NEAREST, cutoff=0.5)
    meant = f" Near it: {', '.join(near)}." if near else ""
    raise UserError(f"--config.op={wanted!r} is no op, role or module path.{meant} Roles: {', '.join(roles)}.")


def _largest_first(
    module: Module, ops: Sequence[AttributedOp], size: Callable[[AttributedOp], float]
) -> list[AttributedOp]:
    found: list[AttributedOp] = []
    for group in sorted(families(module, ops), key=lambda group: sum(map(size, group)), reverse=True):
        group.sort(key=size, reverse=True)
        middle = group.pop(len(group) // 2)
        found += [middle, *group]
    return found


def _is_path(path: str, wanted: str, whole: bool) -> bool:
    parts, asked = path.split("/"), wanted.strip("/").split("/")
    if not path or not asked[0]:
        return False
    patterns = [re.escape(part).replace(r"\*", ".*") for part in asked]
    starts = [len(parts) - len(asked)] if whole else range(len(parts) - len(asked) + 1)
    return any(
        start >= 0 and all(re.fullmatch(p, part) for p, part in zip(patterns, parts[start:], strict=False))
        for start in starts
    )


def families(module: Module, ops: Iterable[AttributedOp]) -> list[list[AttributedOp]]:
    """The ops that compute the same together, in the order of the first of each."""
    found: dict[Any, list[AttributedOp]] = {}
    for op in ops:
        found.setdefault(fingerprint(module, module.computations[op.op.computation], op.op.instruction), []).append(op)
    return list(found.values())


def fingerprint(module: Module, computation: Computation, instruction: Instruction) -> tuple[Any, ...]:
    """What an instruction computes, without names: equal for ops whose code is the same."""
    operands = tuple(str(i.shape) for i in computation.operands(instruction))
    return (_line(instruction), operands, *(_interior(module, callee) for callee in module.called(instruction)))


def _interior(module: Module, computation: Computation) -> tuple[Any, ...]:
    places = {i.name: k for k, i in enumerate(computation)}
    return tuple(
        (_line(i), tuple(places[name] for name in i.operands), *(_interior(module, c) for c in module.called(i)))
        for i in computation
    )


def _line(i: Instruction) -> tuple[Any, ...]:
    attributes = tuple(sorted((key, str(value)) for key, value in i.attributes.items() if key not in _NAMES))
    return (i.opcode, str(i.shape), i.literal, i.parameter_number, i.is_root, attributes)


def alike(module: Module, op: AttributedOp, ops: Iterable[AttributedOp]) -> list[AttributedOp]:
    """The ops of the program that compute what `op` computes, itself among them."""
    mine = fingerprint(module, module.computations[op.op.computation], op.op.instruction)
    same = [o for o in ops if o.opcode == op.opcode and str(o.op.instruction.shape) == str(op.op.instruction.shape)]
    return [o for o in same if fingerprint(module, module.computations[o.op.computation], o.op.instruction) == mine]


def symbol_of(op: AttributedOp, twins: Iterable[AttributedOp], symbols: Iterable[str]) -> str | None:
    """The function that is the op's code: its own, or that of an op alike, which XLA compiles once for all of them."""
    known = set(symbols)
    plain = {_spelt(symbol): symbol for symbol in known}
    for each in (op, *twins):
        for name in (each.name, f"{each.name}_kernel", f"{each.name}_elemental_kernel"):
            if name in known or _spelt(name) in plain:
                return name if name in known else plain[_spelt(name)]
    return None


def _spelt(name: str) -> str:
    return re.sub(r"[^\w]", "_", name)


def runner(op: AttributedOp) -> tuple[str, str]:
    """Who does the work of an op that XLA made no code for, and what that is in words."""
    if op.op.library:
        return op.op.library, f"a call of the library {op.op.library}"
    opcode = op.opcode
    if opcode == "custom-call":
        return "custom call", f"a call of {op.op.instruction.custom_call_target}"
    return RUNTIME.get(opcode, ("", "the dump holds no code under its name"))


def hlo_text(text: str, module: Module, op: AttributedOp) -> str:
    """The op's line of the HLO text and, before it, all computations it calls."""
    lines = text.splitlines()
    wanted: list[Computation] = []
    stack = list(module.called(op.op.instruction))
    while stack:
        computation = stack.pop()
        if computation not in wanted:
            wanted.append(computation)
            stack += [callee for i in computation for callee in module.called(i)]
    parts = []
    for computation in sorted(wanted, key=lambda c: c.line):
        end = computation.line
        while end < len(lines) and lines[end].strip() != "}" and not lines[end].startswith("}"):
            end += 1
        parts.append("\n".join(lines[computation.line - 1 : end + 1]))
    return "\n\n".join([*parts, lines[op.op.instruction.line - 1].strip()]) + "\n"


def short_hlo(text: str) -> list[str]:
    """HLO text for people: no percent signs, layouts, metadata or backend configuration, no parameters' lines."""
    found = []
    for line in text.splitlines():
        line = re.sub(r", (metadata|backend_config|frontend_attributes)=(\{.*|\".*?\")", "", line)
        line = re.sub(r"(?<=\])\{[\d,]*(:[^{}]*)?\}", "", line.replace("%", ""))
        if line.strip() and " parameter(" not in line:
            found.append(line.rstrip())
    return found
