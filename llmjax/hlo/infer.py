"""Shapes that hand-written HLO leaves out: `ROOT sum = add(a, b)`.

XLA's parser allows it for opcodes whose result follows from operands and attributes; the rules are those of its
ShapeInference. Layouts are not inferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmjax.hlo.attributes import ConvDims, PadDim, Window
from llmjax.hlo.ir import Computation
from llmjax.hlo.shape import Shape

_SAME_AS_FIRST = {
    "abs", "acos", "acosh", "add", "add-dependency", "all-reduce", "all-reduce-done", "all-to-all", "and", "asin",
    "asinh", "atan2", "atanh", "batch-norm-inference", "cbrt", "ceil", "cholesky", "collective-broadcast",
    "collective-permute", "copy", "cosine", "cosh", "count-leading-zeros", "divide", "domain",
    "dynamic-update-slice", "erf", "exponential", "exponential-minus-one", "floor", "log", "log-plus-one",
    "logistic", "map", "maximum", "minimum", "multiply", "negate", "not", "opt-barrier", "optimization-barrier",
    "or", "popcnt", "power", "remainder", "reverse", "round-nearest-afz", "round-nearest-even", "rsqrt", "scatter",
    "select-and-scatter", "shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "sine", "sinh",
    "sqrt", "subtract", "tan", "tanh", "while", "xor",
}  # fmt: skip
_COMPLEX_OF = {"f32": "c64", "f64": "c128"}
_REAL_OF = {"c64": "f32", "c128": "f64"}


def infer_shape(
    opcode: str, operands: Sequence[Shape], attributes: Mapping[str, Any], computations: Mapping[str, Computation]
) -> Shape:
    """The shape of `opcode(operands), attributes`; `computations` are those above.

    Raises ValueError (what was expected) where the shape does not follow, or operands do not fit.
    """
    a = attributes
    unknown = ValueError(f"a shape before {opcode!r}: it does not follow from the operands")
    try:
        match opcode:
            case "tuple":
                return Shape("tuple", tuple_shapes=tuple(operands))
            case "get-tuple-element":
                return operands[0].tuple_shapes[a["index"]]
            case "after-all":
                return Shape("token")
            case "replica-id" | "partition-id":
                return Shape("u32")
            case "get-dimension-size":
                return Shape("s32")
            case "compare":
                return Shape("pred", operands[0].dims, operands[0].dynamic)
            case "is-finite":
                return Shape("pred", operands[0].dims, operands[0].dynamic)
            case "real" | "imag":
                return replace(operands[0], dtype=_REAL_OF.get(operands[0].dtype, operands[0].dtype))
            case "complex":
                return replace(operands[0], dtype=_COMPLEX_OF[operands[0].dtype])
            case "select" | "clamp":
                return operands[1]
            case "sort":
                return operands[0] if len(operands) == 1 else Shape("tuple", tuple_shapes=tuple(operands))
            case "transpose":
                return Shape(operands[0].dtype, tuple(operands[0].dims[d] for d in a["dimensions"]))
            case "concatenate":
                axis = a["dimensions"][0]
                total = sum(s.dims[axis] for s in operands)
                return _with_dims(operands[0], [total if i == axis else d for i, d in enumerate(operands[0].dims)])
            case "slice":
                return _with_dims(operands[0], [max(0, -(-(s.limit - s.start) // s.stride)) for s in a["slice"]])
            case "dynamic-slice":
                return _with_dims(operands[0], a["dynamic_slice_sizes"])
            case "pad":
                return _with_dims(
                    operands[0], [_padded(d, p) for d, p in zip(operands[0].dims, a["padding"], strict=True)]
                )
            case "call":
                return computations[a["to_apply"]].root.shape
            case "conditional":
                branches = a.get("branch_computations", (a.get("true_computation"),))
                return computations[branches[0]].root.shape
            case "reduce":
                return _reduced(operands, a["dimensions"])
            case "reduce-window":
                return _windowed(operands, a["window"])
            case "dot":
                return _dot(operands[0], operands[1], a)
            case "convolution":
                return _convolution(operands[0], operands[1], a.get("window", Window()), a["dim_labels"])
            case _ if opcode in _SAME_AS_FIRST:
                return operands[0]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ZeroDivisionError):
        raise unknown from None
    raise unknown


def _with_dims(shape: Shape, dims: Sequence[int]) -> Shape:
    return Shape(shape.dtype, tuple(dims))


def _padded(size: int, pad: PadDim) -> int:
    return size + pad.low + pad.high + max(size - 1, 0) * pad.interior


def _one_or_tuple(shapes: Sequence[Shape]) -> Shape:
    return shapes[0] if len(shapes) == 1 else Shape("tuple", tuple_shapes=tuple(shapes))


def _reduced(operands: Sequence[Shape], dimensions: Sequence[int]) -> Shape:
    """Inputs come first, then as many initial values, which say the element types."""
    half = len(operands) // 2
    kept = [d for i, d in enumerate(operands[0].dims) if i not in dimensions]
    return _one_or_tuple([Shape(initial.dtype, tuple(kept)) for initial in operands[half:]])


def _window_size(size: int, window: Window, i: int) -> int:
    """Places at which dimension `i` of the window fits on `size` elements."""
    base = (size - 1) * window.lhs_dilate[i] + 1 if size else 0
    width = (window.size[i] - 1) * window.rhs_dilate[i] + 1
    span = base + sum(window.pad[i]) - width
    return span // window.stride[i] + 1 if span >= 0 else 0


def _windowed(operands: Sequence[Shape], window: Window) -> Shape:
    half = len(operands) // 2
    dims = tuple(_window_size(d, window, i) for i, d in enumerate(operands[0].dims))
    return _one_or_tuple([Shape(initial.dtype, dims) for initial in operands[half:]])


def _dot(lhs: Shape, rhs: Shape, a: Mapping[str, Any]) -> Shape:
    lhs_batch, rhs_batch = a.get("lhs_batch_dims", ()), a.get("rhs_batch_dims", ())
    lhs_used = {*lhs_batch, *a.get("lhs_contracting_dims", ())}
    rhs_used = {*rhs_batch, *a.get("rhs_contracting_dims", ())}
    dims = [lhs.dims[i] for i in lhs_batch]
    dims += [d for i, d in enumerate(lhs.dims) if i not in lhs_used]
    dims += [d for i, d in enumerate(rhs.dims) if i not in rhs_used]
    return Shape(lhs.dtype, tuple(dims))


def _convolution(lhs: Shape, rhs: Shape, window: Window, labels: ConvDims) -> Shape:
    dims = [0] * len(lhs.dims)
    dims[labels.out_batch] = lhs.dims[labels.lhs_batch]
    dims[labels.out_feature] = rhs.dims[labels.rhs_output]
    for i, out in enumerate(labels.out_spatial):
        dims[out] = _window_size(lhs.dims[labels.lhs_spatial[i]], window, i)
    return Shape(lhs.dtype, tuple(dims))
