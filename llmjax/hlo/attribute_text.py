"""Values of attributes from their text. Every function takes the whole text of one value and raises ValueError(what was
expected) for text that is none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from llmjax.hlo.attributes import Alias, ConvDims, Metadata, PadDim, ReplicaGroups, SliceDim, Window
from llmjax.hlo.lexer import NAME, STRING, balanced_end, pattern, split_list, unquote, without_comments

_INT_RE = pattern(r"[+-]?\d{1,19}")
_FLOAT_RE = pattern(r"[+-]?(?:\d{1,400}\.?\d{0,400}|\.\d{1,400})(?:[eE][+-]?\d{1,9})?|[+-]?inf|[+-]?nan")
_NAME_RE = pattern(rf"%?({NAME})")
_FIELD_RE = pattern(rf"\s*+(\w++)=({STRING}|[^\s,{{}}\"]++|(?=\{{)),?")
_WINDOW_FIELD_RE = pattern(r"\s*+(\w++)=([\dx_\-]++)")
_DIMS_RE = pattern(r"([\dbf?]++)_([\dio?]++)->([\dbf?]++)")
_SLICE_RE = pattern(r"\[\s*(-?\d{1,19})\s*:\s*(-?\d{1,19})\s*(?::\s*(-?\d{1,19})\s*)?\]")
_IOTA_RE = pattern(r"\[([\d,\s]+)\]\s*<=\s*\[([\d,\s]+)\]\s*(?:T\s*\(([\d,\s]+)\))?")
_MESH_RE = pattern(
    r"mesh\[([^\[\]]*+)\](?:,\s*+device_ids=\(\[([\d,\s]++)\](?:T\(([\d,\s]++)\))?+\))?+\s*+\{([^{}]*+)\}"
)
_AXIS_NAME = r"""(?:^|(?<=[,\s]))['"]?([\w.\-]++)['"]?"""
_AXIS_RE = pattern(rf"{_AXIS_NAME}\s*+=\s*+(\d{{1,9}})")
_NAMED_AXIS_RE = pattern(rf"{_AXIS_NAME}\s*+(?::\s*+\((\d{{1,9}})\)(\d{{1,9}}))?")
_ALIAS_RE = pattern(
    r"(\{[\d,\s]*\})\s*:\s*(?:\(\s*(\d{1,9})\s*(?:,\s*(\{[\d,\s]*\})\s*(?:,\s*([\w-]+)\s*)?)?\)|(\d{1,9}))"
)


def to_int(text: str) -> int:
    if not _INT_RE.fullmatch(text):
        raise ValueError("a whole number")
    return int(text)


def _bare_ints(text: str | None) -> tuple[int, ...]:
    """`2, 4`, without braces."""
    return tuple(to_int(item.strip()) for item in text.split(",")) if text else ()


def to_braces(text: str) -> str:
    """What stands between the braces, without comments."""
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("a list in braces")
    return without_comments(text[1:-1])


def to_ints(text: str) -> tuple[int, ...]:
    return tuple(map(to_int, split_list(to_braces(text))))


def to_int_lists(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(map(to_ints, split_list(to_braces(text))))


def to_sizes(text: str) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
    """`{1,8}` of a gather, `{{8,16},{4,16}}` of a collective-permute."""
    return to_int_lists(text) if text.replace(" ", "").startswith("{{") else to_ints(text)


def to_name(text: str) -> str:
    m = _NAME_RE.fullmatch(text)
    if not m:
        raise ValueError("a name")
    return m[1]


def to_names(text: str) -> tuple[str, ...]:
    """Names in braces, or one name alone."""
    return tuple(map(to_name, split_list(to_braces(text)))) if text.startswith("{") else (to_name(text),)


def to_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def to_string(text: str) -> str:
    if not text.startswith('"'):
        raise ValueError("a string in quotes")
    return unquote(text)


def to_float(text: str) -> float:
    if not _FLOAT_RE.fullmatch(text):
        raise ValueError("a number")
    return float(text)


def to_any(text: str) -> Any:
    """An attribute of unknown meaning: numbers, booleans, strings and lists of numbers as such, all else as text."""
    if text.startswith('"'):
        return unquote(text)
    if text in ("true", "false"):
        return text == "true"
    for convert in (to_int, to_float, to_ints):
        try:
            return convert(text)
        except ValueError:
            continue
    return text[1:] if _NAME_RE.fullmatch(text) and text.startswith("%") else text


def to_window(text: str) -> Window:
    inner = to_braces(text).strip()
    fields: dict[str, list[str]] = {}
    pos = 0
    while pos < len(inner):
        m = _WINDOW_FIELD_RE.match(inner, pos)
        if not m or m[1] in fields:
            raise ValueError("a window such as {size=3x3 stride=2x2 pad=0_1x0_1}")
        fields[m[1]] = m[2].split("x")
        pos = m.end()
    rank = len(fields.get("size", ()))
    unknown = fields.keys() - {"size", "stride", "pad", "lhs_dilate", "rhs_dilate", "rhs_reversal"}
    if unknown:
        raise ValueError(f"a window's size, stride, pad, lhs_dilate, rhs_dilate or rhs_reversal, not {min(unknown)}")
    if any(len(items) != rank for items in fields.values()):
        raise ValueError(f"as many entries as the window's size has ({rank})")
    ones = ["1"] * rank
    return Window(
        tuple(map(to_int, fields.get("size", ()))),
        tuple(map(to_int, fields.get("stride", ones))),
        tuple(map(_window_pad, fields.get("pad", ["0_0"] * rank))),
        tuple(map(to_int, fields.get("lhs_dilate", ones))),
        tuple(map(to_int, fields.get("rhs_dilate", ones))),
        tuple(to_int(item) != 0 for item in fields.get("rhs_reversal", ["0"] * rank)),
    )


def _window_pad(text: str) -> tuple[int, int]:
    low, bar, high = text.partition("_")
    if not bar:
        raise ValueError("padding such as 0_1")
    return to_int(low), to_int(high)


def to_padding(text: str) -> tuple[PadDim, ...]:
    dims = []
    for item in text.split("x") if text else ():  # a scalar's padding is empty
        numbers = tuple(map(to_int, item.split("_")))
        if len(numbers) not in (2, 3):
            raise ValueError("padding such as 0_1x2_3_1")
        dims.append(PadDim(*numbers))
    return tuple(dims)


def to_slice(text: str) -> tuple[SliceDim, ...]:
    dims = []
    for item in split_list(to_braces(text)):
        m = _SLICE_RE.fullmatch(item)
        if not m:
            raise ValueError("ranges such as {[0:8], [0:4:2]}")
        dims.append(SliceDim(int(m[1]), int(m[2]), int(m[3] or 1)))
    return tuple(dims)


def to_conv_dims(text: str) -> ConvDims:
    m = _DIMS_RE.fullmatch(text)
    if not m:
        raise ValueError("labels such as b01f_01io->b01f")
    lhs, rhs, out = m.groups()
    rank = len(lhs)
    spatial = [str(i) for i in range(rank - 2)]
    fits = rank <= 12 and all(
        sorted(labels.replace("?", "")) == sorted([*(s for s in spatial if s in labels), *ends])
        for labels, ends in ((lhs, "bf"), (rhs, "io"), (out, "bf"))
    )
    if not fits:
        raise ValueError("each label of b01f_01io->b01f once")

    def places(labels: str) -> tuple[int, ...]:
        return tuple(labels.index(s) for s in spatial if s in labels)

    return ConvDims(
        lhs.index("b"), lhs.index("f"), places(lhs),
        rhs.index("i"), rhs.index("o"), places(rhs),
        out.index("b"), out.index("f"), places(out), text,
    )  # fmt: skip


def to_replica_groups(text: str) -> ReplicaGroups:
    if text.startswith("{"):
        return ReplicaGroups(explicit=to_int_lists(text), text=text)
    m = _IOTA_RE.fullmatch(text)
    if not m:
        if text.startswith(("mesh", "@mesh")):
            return _mesh_groups(text)
        raise ValueError("groups such as {{0,1},{2,3}} or [2,4]<=[8]")
    shape, reshape, transpose = map(_bare_ints, m.groups())
    if math.prod(shape) != math.prod(reshape) or (transpose and sorted(transpose) != list(range(len(reshape)))):
        raise ValueError("a list of devices [groups,size]<=[dims]T(order) whose sizes agree")
    return ReplicaGroups(shape=shape, reshape=reshape, transpose=transpose, text=text)


def _mesh_groups(text: str) -> ReplicaGroups:
    """`mesh['x'=2,'y'=4] {'x'}`: the devices that differ in the named axes only are a group.

    Of an axis, `'y':(1)2` names a part: of its indices taken as (1, 2, rest) the one in the middle (Shardy's sub-axes).
    `device_ids=([2,2]T(1,0))` between them says which device stands where, as the short form of groups does. What says
    more (`@mesh`) stays text.
    """
    m = _MESH_RE.fullmatch(text)
    sizes = {name: int(size) for name, size in _AXIS_RE.findall(m[1])} if m else {}
    named = [(n, int(before or 1), int(size or 0)) for n, before, size in _NAMED_AXIS_RE.findall(m[4])] if m else []
    if not m or not sizes or not named:
        return ReplicaGroups(text=text)
    unknown = [name for name, _, _ in named if name not in sizes]
    if unknown:
        raise ValueError(f"axes of the mesh {', '.join(sizes)} (there is no {unknown[0]})")
    # Cut every axis where a part of it begins or ends; the group is what varies with the pieces inside the parts.
    pieces: list[tuple[str, int, int]] = []  # (axis, how many indices lie before it, size)
    for name, whole in sizes.items():
        cuts = {1, whole} | {cut for n, before, size in named if n == name and size for cut in (before, before * size)}
        edges = sorted(cuts)
        if not edges[0] or any(high % low for low, high in pairwise(edges)):
            raise ValueError(f"parts of an axis that divide its size ({name} has {whole})")
        pieces += [(name, low, high // low) for low, high in pairwise(edges)]
    inside: dict[int, None] = {}
    for name, before, size in named:
        end = before * size if size else sizes[name]
        inside |= dict.fromkeys(k for k, (n, low, _) in enumerate(pieces) if n == name and before <= low < end)
    order = (*(k for k in range(len(pieces)) if k not in inside), *inside)
    dims = tuple(size for _, _, size in pieces)
    group = math.prod(dims[k] for k in inside)
    found = ReplicaGroups(shape=(math.prod(dims) // group, group), reshape=dims, transpose=order, text=text)
    if not m[2]:
        return found
    lie, turned = _bare_ints(m[2]), _bare_ints(m[3])
    if math.prod(lie) != math.prod(dims) or (turned and sorted(turned) != list(range(len(lie)))):
        raise ValueError("device ids [dims]T(order) that are as many as the mesh has devices")
    devices = ReplicaGroups(shape=(1, math.prod(lie)), reshape=lie, transpose=turned).groups[0]
    return ReplicaGroups(explicit=tuple(tuple(devices[k] for k in one) for one in found.groups), text=text)


def to_pairs(text: str) -> tuple[tuple[int, ...], ...]:
    pairs = to_int_lists(text)
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("pairs such as {{0,1},{1,0}}")
    return pairs


def to_aliases(text: str) -> tuple[Alias, ...]:
    """`{ {0}: (1, {}, may-alias), {1,2}: (3, {0}) }`; very old text has a bare parameter number: `{ {0}: 1 }`."""
    found = []
    for item in split_list(to_braces(text)):
        m = _ALIAS_RE.fullmatch(item)
        if not m:
            raise ValueError("aliases such as { {0}: (1, {}, may-alias) }")
        number = m[2] if m[2] is not None else m[5]
        found.append(Alias(to_ints(m[1]), int(number), to_ints(m[3]) if m[3] else (), m[4] or ""))
    return tuple(found)


def to_frontend_attributes(text: str) -> dict[str, str]:
    """`{key="value",other={nested="..."}}`; values that are not strings stay text."""
    found: dict[str, str] = {}
    for item in split_list(to_braces(text)):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError('attributes such as {key="value"}')
        found[unquote(key) if key.startswith('"') else key.strip()] = unquote(value) if value.startswith('"') else value
    return found


_METADATA_INTS = ("source_line", "source_end_line", "source_column", "source_end_column", "stack_frame_id")
_METADATA_STRINGS = ("op_name", "op_type", "source_file", "scheduling_name")


def to_metadata(text: str) -> Metadata:
    inner = to_braces(text).strip()
    known: dict[str, Any] = {}
    extra: list[tuple[str, str]] = []
    pos = 0
    while pos < len(inner):
        m = _FIELD_RE.match(inner, pos)
        if not m:
            raise ValueError('metadata such as {op_name="..." source_line=1}')
        key, value = m.groups()
        pos = m.end()
        if not value:
            end = balanced_end(inner, pos)
            if end < 0:
                raise ValueError("matching brackets in metadata")
            value, pos = inner[pos:end], end
        if key in _METADATA_STRINGS:
            known[key] = to_string(value)
        elif key in _METADATA_INTS:
            known[key] = to_int(value)
        else:
            extra.append((key, unquote(value) if value.startswith('"') else value))
    return Metadata(**known, extra=tuple(extra))


def to_backend_config(text: str) -> Any:
    """What JSON says, else the text."""
    raw = unquote(text) if text.startswith('"') else text
    if raw[:1] not in ("{", "["):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw


# How to read the attributes whose meaning is known; all others go through to_any.
CONVERTERS: dict[str, Callable[[str], Any]] = {
    "window": to_window,
    "dim_labels": to_conv_dims,
    "padding": to_padding,
    "slice": to_slice,
    "replica_groups": to_replica_groups,
    "source_target_pairs": to_pairs,
    "slice_sizes": to_sizes,
    "control-predecessors": to_names,
    "output_to_operand_aliasing": to_aliases,
    "input_output_alias": to_aliases,
    "frontend_attributes": to_frontend_attributes,
    "sharding": str,
    "origin": str,
    "statistics": str,
    "backend_config": to_backend_config,
    "metadata": to_metadata,
    **dict.fromkeys(
        (
            "dimensions", "lhs_contracting_dims", "rhs_contracting_dims", "lhs_batch_dims", "rhs_batch_dims",
            "lhs_ragged_dims", "rhs_group_dims", "dynamic_slice_sizes", "offset_dims", "collapsed_slice_dims",
            "operand_batching_dims", "start_indices_batching_dims", "start_index_map", "update_window_dims",
            "inserted_window_dims", "input_batching_dims", "scatter_indices_batching_dims",
            "scatter_dims_to_operand_dims", "fft_length",
        ),
        to_ints,
    ),
    **dict.fromkeys(
        (
            "index", "iota_dimension", "index_vector_dim", "channel_id", "feature_group_count", "batch_group_count",
            "feature_index", "exponent_bits", "mantissa_bits", "k", "delta", "split_count", "inferred_dimension",
            "cross_program_prefetch_index", "num_partitions", "replica_count",
        ),
        to_int,
    ),
    **dict.fromkeys(
        (
            "is_stable", "indices_are_sorted", "unique_indices", "use_global_device_ids", "constrain_layout",
            "is_host_transfer", "custom_call_has_side_effect", "largest", "lower", "left_side", "unit_diagonal",
            "is_composite", "is_scheduled", "is_cross_program_prefetch", "is_async",
        ),
        to_bool,
    ),
    **dict.fromkeys(("epsilon",), to_float),
    **dict.fromkeys(
        ("custom_call_target", "async_execution_thread", "execution_thread", "infeed_config", "outfeed_config"),
        to_string,
    ),
}  # fmt: skip
