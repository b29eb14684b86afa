"""Whose an instruction is where its name does not say: by the weights it reads, and by the classes on its stack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import dropwhile
from typing import Any

from llmjax.cost.names import once
from llmjax.hlo.attributes import SourceLocation
from llmjax.hlo.ir import Instruction, Module

Callers = Mapping[str, tuple[Instruction, str]]
_HOPS = 16  # so far an operand is followed
_RENAMES = """
bitcast broadcast convert copy copy-done copy-start dynamic-slice get-tuple-element reshape slice transpose
"""
_SAME_ARRAY = frozenset(_RENAMES.split())
_STEP = re.compile(r"""\[["']?([\w\-]+)["']?\]|\.([A-Za-z_]\w*)""")
_LEAVES = frozenset(("b", "bias", "embedding", "kernel", "raw_value", "scale", "value", "w", "weight"))
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "<frozen ")
_METHOD = re.compile(r"([A-Z]\w*)\.(\w+)")
_CALLS = frozenset({"__call__", "forward", "apply"})
_WRAPPERS = frozenset({"BoundMethod"})  # what Equinox puts around a module's methods


def is_installed(frame: SourceLocation) -> bool:
    """Whether a frame is of an installed package, of Python itself or of no file, not of the user's program."""
    return frame.file.startswith("<") or any(library in frame.file for library in _LIBRARIES)


def is_product_with_weights(i: Instruction) -> bool:
    """Whether a matrix product has no batch of matrices, as one of activations with weights has none.

    Scores of attention, and what they mix, are a product for each sequence and head.
    """
    if i.opcode in ("dot", "scaled-dot", "ragged-dot"):
        return not i.dot_dims.lhs_batch
    if i.opcode == "convolution":  # TPU's products; a batch of them goes as a window
        return all(size == 1 for size in i.window.size)
    numbers = _numbers(i.backend_config) if i.opcode.startswith("custom-call") else None
    return numbers is not None and not numbers.get("lhs_batch_dimensions")


def weights_path(module: Module, callers: Callers, i: Instruction, home: str) -> str:
    """The path of the argument whose array `i` reads: `layers/1/attn/query` of `state['layers'][1]['attn']['query']
    ['kernel'].value`, "" where it reads none.

    `callers` has the instruction that calls each computation, and the computation it stands in.
    """
    for name in i.operands:
        path = argument_path(_source_name(module, callers, name, home))
        if path:
            return path
    return ""


def argument_path(op_name: str) -> str:
    """The keys in the name of an argument, without its own name and the leaf's."""
    steps = [key or attribute for key, attribute in _STEP.findall(op_name)]
    while steps and steps[-1] in _LEAVES:
        steps.pop()
    return "/".join(steps)


def class_path(module: Module, i: Instruction) -> str:
    """The classes whose methods stand on an instruction's stack, the outermost first: `Net/Block/Attention/Linear`.

    Of a method that is no call of the module its name stays: `Embed.attend`. Installed programs that run the user's own
    (pytest) are left out.
    """
    found: list[str] = []
    for frame in dropwhile(is_installed, reversed(module.stack(i))):
        m = _METHOD.fullmatch(frame.function)
        if m is None or m[1] in _WRAPPERS:
            continue
        name = m[1] if m[2] in _CALLS else f"{m[1]}.{m[2]}"
        if not found or found[-1].partition(".")[0] != m[1]:
            found.append(name)
    return "/".join(once(found))  # recomputation writes the whole stack once more


def function_path(module: Module, i: Instruction) -> str:
    """The user's functions on an instruction's stack, the outermost first: `resnet_block/group_norm`.

    They begin inside the one that was compiled, which the module is called after; lambdas and code outside of any
    function have no name.
    """
    frames = [frame for frame in reversed(module.stack(i)) if not is_installed(frame)]
    names = [frame.function.rpartition("<locals>.")[2] for frame in frames]
    program = module.name.removeprefix("jit_")
    if program in names:
        names = names[len(names) - names[::-1].index(program) :]
    found: list[str] = []
    for name in names:
        if name and not name.startswith("<") and name not in found[-1:]:
            found.append(name)
    return "/".join(found)


def _source_name(module: Module, callers: Callers, name: str, home: str) -> str:
    """The name of the program's argument that `name` is another form of, through fusions; "" where it is none."""
    for _ in range(_HOPS):
        computation = module.computations[home]
        i = computation.by_name[name]
        if i.opcode in _SAME_ARRAY and i.operands:
            name = i.operands[0]
            continue
        if i.opcode != "parameter":
            return ""
        if home not in callers:
            return i.metadata.op_name
        caller, around = callers[home]
        if "fusion" not in caller.opcode or i.parameter_number >= len(caller.operands):
            return ""
        name, home = caller.operands[i.parameter_number], around
    return ""


def _numbers(config: Any) -> Mapping[str, Any] | None:
    inner = config.get("gemm_backend_config", config) if isinstance(config, Mapping) else None
    numbers = inner.get("dot_dimension_numbers") if isinstance(inner, Mapping) else None
    return numbers if isinstance(numbers, Mapping) else None
