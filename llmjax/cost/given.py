"""A user's own figures for custom calls: FLOPs and bytes by target, as numbers or formulas of the operands' shapes.

    {"my_kernel": {"flops": "2 * x0[0] * x0[1] * x1[1]", "bytes": "nbytes(x0) + nbytes(x1) + nbytes(y0)"}}

In a formula `x0`, `x1`, ... are the dimensions of the operands and `y0`, ... of the results, `size(x0)` is how many
elements one has and `nbytes(x0)` how many bytes; numbers, + - * / // ** and parentheses are the rest of it.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llmjax.cost import memory
from llmjax.cost.library import shared
from llmjax.cost.values import Context, Cost, Number, Traffic, UnmodelledError
from llmjax.errors import UserError, did_you_mean
from llmjax.hlo.ir import Instruction, Shape
from llmjax.json_file import read_json

_MOST = 2.0**200  # of a figure, and of what a formula comes to on its way
_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, Callable[[Shape], int]] = {
    "size": lambda shape: shape.elements,
    "nbytes": lambda shape: shape.bytes,
}


@dataclass(frozen=True, slots=True)
class Given:
    """One target's figures, of one execution on one device; numbers, or formulas. `flops` are a matrix unit's,
    `vector_flops` and `transcendentals` the vector unit's. `bytes` of None are all operands and results, once each."""

    flops: Number | str = 0
    vector_flops: Number | str = 0
    transcendentals: Number | str = 0
    bytes: Number | str | None = None


Table = Mapping[str, Given]


def given_table(raw: Mapping[str, Any] | str | Path | None) -> Table:
    """Returns the table that a mapping of targets to {"flops": ..., "bytes": ...}, or a JSON file of one, stands for.

    Raises:
        UserError: the file cannot be read, a name is none of Given's, or a value is neither a number nor a formula.
    """
    if raw is None:
        return {}
    source = repr(str(raw)) if isinstance(raw, str | Path) else ""
    values = read_json(raw, "custom_calls") if isinstance(raw, str | Path) else raw
    known = [field.name for field in fields(Given)]
    found = {}
    for target, figures in values.items():
        where = f"custom_calls{f'={source}' if source else ''}[{target!r}]"
        if isinstance(figures, Given):
            found[target] = figures
            continue
        if not isinstance(figures, Mapping) or not figures:
            raise UserError(f'{where} must be figures such as {{"flops": 1e9, "bytes": "nbytes(x0)"}}.')
        for name, value in figures.items():
            if name not in known:
                raise UserError(f"{where}: {name!r} is none of {', '.join(known)}.{did_you_mean(str(name), known)}")
            _check(value, f"{where}[{name!r}]")
        found[target] = Given(**figures)
    return found


def cost_of(given: Given, i: Instruction, context: Context) -> tuple[Cost, Traffic]:
    """Returns the work and the traffic of one execution of a custom call by its user's figures.

    Bytes are written as far as results take them, and what is left is read.

    Raises:
        UnmodelledError: a formula asks for an operand, a result or a dimension that is not there, or comes to less than
            nothing.
    """
    shapes = {f"x{k}": shape for k, shape in enumerate(context.shapes(i))}
    shapes |= {f"y{k}": leaf for k, leaf in enumerate(i.shape.leaves)}
    flops, vector, transcendentals = (
        _value(getattr(given, name), shapes, f"{i.custom_call_target}: {name}")
        for name in ("flops", "vector_flops", "transcendentals")
    )
    whole = memory.whole(i, context)
    if given.bytes is not None:
        moved = round(_value(given.bytes, shapes, f"{i.custom_call_target}: bytes"))
        written = min(moved, i.shape.bytes)
        whole = Traffic(shared(moved - written, whole.reads), shared(written, whole.writes))
    return Cost(flops, vector, transcendentals), whole


def _check(value: Any, where: str) -> None:
    if isinstance(value, str):
        try:
            _supported(ast.parse(value.strip(), mode="eval").body)
            return
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            what = error.msg if isinstance(error, SyntaxError) else error
            raise UserError(f"{where}={value[:80]!r} is no formula of x0[0], size(x0), nbytes(y0): {what}.") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise UserError(f"{where}={value!r} must be a number of 0 or more, or a formula.")


def _supported(node: ast.expr) -> None:
    """Raises ValueError where a formula has what none may have."""
    match node:
        case ast.Constant(value=value) if isinstance(value, int | float) and not isinstance(value, bool):
            return
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _supported(left)
            _supported(right)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _supported(operand)
        case ast.Subscript(value=ast.Name(), slice=index):
            _supported(index)
        case ast.Call(func=ast.Name(id=name), args=[ast.Name()], keywords=[]) if name in _FUNCTIONS:
            return
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not allowed")


def _value(formula: Number | str, shapes: Mapping[str, Shape], what: str) -> Number:
    if not isinstance(formula, str):
        return formula
    try:
        found = _evaluated(ast.parse(formula.strip(), mode="eval").body, shapes)
        if not 0 <= found <= _MOST:
            raise ValueError(f"it comes to {found:g}")
    except (ArithmeticError, KeyError, IndexError, TypeError, ValueError) as error:
        missing = f"there is no {error.args[0]}" if isinstance(error, KeyError) else error
        raise UnmodelledError(f"{what} = {formula}: {missing}") from None
    return round(found)


def _evaluated(node: ast.expr, shapes: Mapping[str, Shape]) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(left=left, op=op, right=right):
            one, other = _evaluated(left, shapes), _evaluated(right, shapes)
            if isinstance(op, ast.Pow) and abs(other) > 8:
                raise ValueError(f"a power of {other:g} is too high")
            found = _OPERATORS[type(op)](one, other)
            if isinstance(found, complex) or abs(found) > _MOST:
                raise ValueError("a number is too large")
            return found
        case ast.UnaryOp(operand=operand):
            return -_evaluated(operand, shapes)
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return shapes[name].dims[int(_evaluated(index, shapes))]
        case ast.Call(func=ast.Name(id=function), args=[ast.Name(id=name)]):
            return _FUNCTIONS[function](shapes[name])
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not allowed")
