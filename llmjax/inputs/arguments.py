"""What arguments look like, in words: `f32[8,128], i32[8], {'w': bf16[4,4]}` -> abstract values, in trees or not.

The words are Python's, without names: tuples, lists, dicts, numbers, strings, True, False and None are themselves.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from llmjax.errors import UserError, did_you_mean

# HLO's and numpy's short names of dtypes -> JAX's; those that JAX calls so itself need no row.
_SHORT = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "s64": "int64", "s32": "int32",
    "s16": "int16", "s8": "int8", "s4": "int4", "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "i4": "int4", "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "u4": "uint4", "pred": "bool",
    "bool": "bool", "c64": "complex64", "c128": "complex128", "f8e4m3fn": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
    "f8e4m3": "float8_e4m3", "f4e2m1fn": "float4_e2m1fn",
}  # fmt: skip
_DTYPES = (*_SHORT, *_SHORT.values())
_EXAMPLE = "--args 'f32[8,128], i32[8]'"
KEY = "key"  # of random numbers: key[]


def read_arguments(words: str) -> tuple[Any, ...]:
    """Returns the arguments that the words stand for, as `jax.ShapeDtypeStruct`s in their trees.

    Raises:
        UserError: the words are not understood; the message names the one that is not.
    """
    text = re.sub(r"(\w)\[\s*\]", r"\1[()]", words)  # f32[] is a scalar, and no Python
    try:
        tree = ast.parse(f"({text.strip().rstrip(',')},)" if text.strip() else "()", mode="eval").body
    except SyntaxError as error:
        raise UserError(f"--args: {words!r} is not understood ({error.msg}); write them as in {_EXAMPLE}.") from error
    return tuple(_value(node) for node in tree.elts) if isinstance(tree, ast.Tuple) else (_value(tree),)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Subscript(value=ast.Name(id=name)):
            return _abstract(name, node)
        case ast.Tuple():
            return tuple(_value(one) for one in node.elts)
        case ast.List():
            return [_value(one) for one in node.elts]
        case ast.Dict() if None not in node.keys:
            return {_literal(key): _value(one) for key, one in zip(node.keys, node.values, strict=True) if key}
    return _literal(node)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        shown = ast.unparse(node)
        more = f" A dtype takes a shape: {shown}[] is a scalar." if shown in (*_DTYPES, KEY) else ""
        raise UserError(f"--args: {shown!r} is no argument; write them as in {_EXAMPLE}.{more}") from error


def _abstract(name: str, node: ast.Subscript) -> Any:
    import jax
    import jax.numpy as jnp

    shown = ast.unparse(node).replace("[()]", "[]")
    try:
        shape = ast.literal_eval(node.slice)
    except ValueError:
        shape = ("",)
    given = shape if isinstance(shape, tuple) else (shape,)
    sizes = tuple(size for size in given if type(size) is int and size >= 0)
    if len(sizes) < len(given):
        raise UserError(f"--args: {shown!r}: a shape is whole numbers, as in {name}[8,128].")
    if name == KEY:
        return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), sizes) if sizes else jax.random.key(0))
    if name not in _DTYPES:
        near = did_you_mean(name, _DTYPES)
        raise UserError(f"--args: {shown!r}: {name!r} is no dtype; there are {', '.join(_SHORT)}.{near}")
    dtype = jnp.dtype(_SHORT.get(name, name))
    if dtype.itemsize == 8 and dtype.kind in "iuf" and not jax.config.values["jax_enable_x64"]:
        raise UserError(f"--args: {shown!r}: JAX computes in 32 bits unless JAX_ENABLE_X64=1 is in the environment.")
    return jax.ShapeDtypeStruct(sizes, dtype)
