"""The structured attributes of HLO instructions, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Window:
    """`window={size=3x3 stride=2x2 pad=0_1x0_1 lhs_dilate=.. rhs_dilate=.. rhs_reversal=..}`: one entry a dimension.

    What the text leaves out has XLA's default (stride 1, no padding, no dilation). Padding may be negative.
    """

    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pad: tuple[tuple[int, int], ...] = ()
    lhs_dilate: tuple[int, ...] = ()
    rhs_dilate: tuple[int, ...] = ()
    rhs_reversal: tuple[bool, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.size)


@dataclass(frozen=True, slots=True)
class ConvDims:
    """`dim_labels=b01f_01io->b01f`: which dimension number of each array is what.

    Spatial tuples are in order of the spatial labels 0, 1, ...: `lhs_spatial[0]` is the dimension labelled 0. A label
    `?` (a dimension that XLA does not name) appears in no field.
    """

    lhs_batch: int
    lhs_feature: int
    lhs_spatial: tuple[int, ...]
    rhs_input: int
    rhs_output: int
    rhs_spatial: tuple[int, ...]
    out_batch: int
    out_feature: int
    out_spatial: tuple[int, ...]
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class DotDims:
    """Dimension numbers of a dot: batch and contracting dimensions of each side."""

    lhs_batch: tuple[int, ...] = ()
    rhs_batch: tuple[int, ...] = ()
    lhs_contracting: tuple[int, ...] = ()
    rhs_contracting: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PadDim:
    """One dimension of `padding=low_high[_interior]`; negative low and high crop."""

    low: int
    high: int
    interior: int = 0


@dataclass(frozen=True, slots=True)
class SliceDim:
    """One dimension of `slice={[start:limit[:stride]]}`."""

    start: int
    limit: int
    stride: int = 1


@dataclass(frozen=True, slots=True)
class ReplicaGroups:
    """`replica_groups=`: lists of ids, the short form `[2,4]<=[4,2]T(1,0)`, or a mesh with axes.

    `explicit` holds listed groups. Of the short (iota) form `shape` is (groups, ids a group) and `reshape`/`transpose`
    say how to lay out 0..n-1; it may stand for many thousand chips, so the lists are made only when asked for.
    `count` and `size` are 0 where the text names no group: then one group of all participants.
    `text` is as written; a mesh form has only that.
    """

    explicit: tuple[tuple[int, ...], ...] = ()
    shape: tuple[int, ...] = ()
    reshape: tuple[int, ...] = ()
    transpose: tuple[int, ...] = ()
    text: str = field(default="", compare=False)

    @property
    def count(self) -> int:
        return self.shape[0] if self.shape else len(self.explicit)

    @property
    def size(self) -> int:
        """Ids in the largest group; 0 = all participants."""
        return math.prod(self.shape[1:]) if self.shape else max(map(len, self.explicit), default=0)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        if not self.shape:
            return self.explicit
        strides = [math.prod(self.reshape[i + 1 :]) for i in range(len(self.reshape))]
        order = self.transpose or tuple(range(len(self.reshape)))
        ids = [0]
        for axis in order:
            ids = [i + k * strides[axis] for i in ids for k in range(self.reshape[axis])]
        return tuple(tuple(ids[g * self.size : (g + 1) * self.size]) for g in range(self.count))


@dataclass(frozen=True, slots=True)
class Metadata:
    """`metadata={...}`: where an instruction comes from. Zero or empty where the text says nothing.

    Use `Module.source(instruction)` for the source line: it knows both the inline and the table form.
    `extra` has the rarer fields (deduplicated_name, size_of_generated_code_in_bytes, ...) as (name, text) pairs.
    """

    op_name: str = ""
    op_type: str = ""
    source_file: str = ""
    source_line: int = 0
    source_end_line: int = 0
    source_column: int = 0
    source_end_column: int = 0
    stack_frame_id: int = 0
    scheduling_name: str = ""
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """One frame of the Python program: file, line, function ("" where the text names none)."""

    file: str
    line: int = 0
    function: str = ""
    column: int = 0
    end_line: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" ({self.function})" if self.function else "")


@dataclass(frozen=True, slots=True)
class SourceTables:
    """The tables FileNames, FunctionNames, FileLocations, StackFrames at the head of a module of new XLA, by id.

    `locations` are (file id, function id, line, end_line, column, end_column); `frames` are (location id, parent frame
    id), parent 0 for the outermost call.
    """

    files: dict[int, str] = field(default_factory=dict)
    functions: dict[int, str] = field(default_factory=dict)
    locations: dict[int, tuple[int, int, int, int, int, int]] = field(default_factory=dict)
    frames: dict[int, tuple[int, int]] = field(default_factory=dict)

    def location(self, frame_id: int) -> SourceLocation | None:
        frame = self.frames.get(frame_id)
        place = self.locations.get(frame[0]) if frame else None
        if place is None:
            return None
        file, function, line, end_line, column, end_column = place
        return SourceLocation(
            self.files.get(file, ""), line, self.functions.get(function, ""), column, end_line, end_column
        )

    def stack(self, frame_id: int) -> tuple[SourceLocation, ...]:
        """Frames from `frame_id` out to the outermost caller; a damaged table that loops ends where it would repeat."""
        found: list[SourceLocation] = []
        seen: set[int] = set()
        while frame_id in self.frames and frame_id not in seen:
            seen.add(frame_id)
            place = self.location(frame_id)
            if place is not None:
                found.append(place)
            frame_id = self.frames[frame_id][1]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Alias:
    """One entry of `input_output_alias={ {1}: (0, {2}, may-alias) }` or of a pair list of a fusion or custom call.

    Output part `output_index` shares the buffer of part `parameter_index` of parameter (or operand) `parameter`.
    `kind` is "may-alias", "must-alias" or "" where the text does not say.
    """

    output_index: tuple[int, ...]
    parameter: int
    parameter_index: tuple[int, ...] = ()
    kind: str = ""
