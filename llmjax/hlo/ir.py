"""An HLO module as frozen values: Module -> Computation -> Instruction.

Names are without their `%`. Order is the order of the text; in a scheduled module that is the order of execution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmjax.hlo.attributes import (
    Alias,
    ConvDims,
    DotDims,
    Metadata,
    PadDim,
    ReplicaGroups,
    SliceDim,
    SourceLocation,
    SourceTables,
    Window,
)
from llmjax.hlo.shape import DTYPE_BITS, UNBOUNDED, Layout, Shape

__all__ = [
    "CALL_ATTRIBUTES",
    "DTYPE_BITS",
    "NO_METADATA",
    "UNBOUNDED",
    "Alias",
    "Computation",
    "ConvDims",
    "DotDims",
    "Instruction",
    "Layout",
    "Metadata",
    "Module",
    "PadDim",
    "ProgramShape",
    "ReplicaGroups",
    "Shape",
    "SliceDim",
    "SourceLocation",
    "SourceTables",
    "Window",
]

NO_METADATA = Metadata()

# Attributes whose value names computations, each as one name (str) or several (tuple of str).
CALL_ATTRIBUTES = (
    "calls",
    "to_apply",
    "condition",
    "body",
    "true_computation",
    "false_computation",
    "branch_computations",
    "called_computations",
    "select",
    "scatter",
)


@dataclass(frozen=True, slots=True, eq=False)
class Instruction:
    """One HLO instruction; compared by identity.

    `opcode` is as written ("dot", "all-reduce-start", "fusion", "async-start", ...); XLA's sugar for
    async wrappers stays (`copy-start` is a real opcode, `slice-start` is sugar for an async-start that runs a slice).
    `operands` are names of instructions of the same computation.
    `attributes` map the attribute's name to a Python value:
      window -> Window; dim_labels -> ConvDims; padding -> tuple[PadDim]; slice -> tuple[SliceDim];
      replica_groups -> ReplicaGroups; source_target_pairs -> tuple of pairs;
      slice_sizes -> tuple[int], of a collective-permute tuple[tuple[int]];
      dimensions, lhs_contracting_dims, dynamic_slice_sizes, offset_dims, ... -> tuple[int];
      calls, to_apply, body, ... -> str, branch_computations and called_computations -> tuple[str];
      control-predecessors -> tuple[str]; output_to_operand_aliasing -> tuple[Alias]; frontend_attributes -> dict;
      index, channel_id, ... -> int; is_stable, ... -> bool; epsilon, ... -> float;
      direction, kind, custom_call_target, sharding, anything unknown -> str (as written, quoted strings unescaped).
    `metadata` and `backend_config` are apart from them: `backend_config` is what json.loads gives when it is JSON, the
    raw text (str) when not, None when absent.
    `literal` is the text between the parentheses of a constant. `parameter_number` is that of a parameter, else -1.
    `line` is the 1-based line of the text.
    """

    name: str
    opcode: str
    shape: Shape
    operands: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    metadata: Metadata = NO_METADATA
    backend_config: Any = None
    literal: str | None = None
    parameter_number: int = -1
    is_root: bool = False
    line: int = 0

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute's value, or `default` where the text does not have it."""
        return self.attributes.get(name, default)

    @property
    def called_computations(self) -> tuple[str, ...]:
        """Names of all computations that this instruction calls, in the order of the text."""
        found: list[str] = []
        for key, value in self.attributes.items():
            if key in CALL_ATTRIBUTES:
                found.extend((value,) if isinstance(value, str) else value)
        return tuple(found)

    @property
    def dot_dims(self) -> DotDims:
        """Dimension numbers of a dot or ragged-dot."""
        a = self.attributes
        return DotDims(
            a.get("lhs_batch_dims", ()),
            a.get("rhs_batch_dims", ()),
            a.get("lhs_contracting_dims", ()),
            a.get("rhs_contracting_dims", ()),
        )

    @property
    def window(self) -> Window:
        """The window, empty (rank 0) where there is none."""
        return self.attributes.get("window", _NO_WINDOW)

    @property
    def custom_call_target(self) -> str:
        return self.attributes.get("custom_call_target", "")

    def __repr__(self) -> str:
        return f"<{self.name} = {self.shape} {self.opcode}({', '.join(self.operands)})>"


_NO_WINDOW = Window()


@dataclass(frozen=True, slots=True)
class ProgramShape:
    """The signature `(a: f32[2], b: s32[]) -> f32[2]`, or an entry layout, whose parameters have no names ("")."""

    parameters: tuple[tuple[str, Shape], ...]
    result: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Computation:
    """A named list of instructions with one root; compared by identity.

    `by_name` finds an instruction. `attributes` are what follows the closing brace (execution_thread, ...).
    """

    name: str
    instructions: tuple[Instruction, ...]
    root: Instruction
    by_name: dict[str, Instruction] = field(repr=False)
    signature: ProgramShape | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    is_entry: bool = False
    line: int = 0

    def __getitem__(self, name: str) -> Instruction:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def parameters(self) -> tuple[Instruction, ...]:
        """Parameter instructions in order of their number."""
        found = [i for i in self.instructions if i.opcode == "parameter"]
        return tuple(sorted(found, key=lambda i: i.parameter_number))

    def operands(self, instruction: Instruction) -> tuple[Instruction, ...]:
        """The instructions that `instruction` reads."""
        return tuple(self.by_name[name] for name in instruction.operands)

    def users(self) -> dict[str, tuple[Instruction, ...]]:
        """For every instruction, the instructions that read it, each once, in order of the text."""
        found: dict[str, list[Instruction]] = {i.name: [] for i in self.instructions}
        for i in self.instructions:
            for name in dict.fromkeys(i.operands):
                found[name].append(i)
        return {name: tuple(readers) for name, readers in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """A parsed HLO module; compared by identity.

    `computations` are by name in order of the text. `attributes` are the header's other attributes
    (is_scheduled -> bool, replica_count, num_partitions -> int, buffer_donor, allow_spmd_sharding_..., -> text).
    """

    name: str
    computations: dict[str, Computation] = field(repr=False)
    entry_name: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    input_output_alias: tuple[Alias, ...] = ()
    entry_computation_layout: ProgramShape | None = None
    tables: SourceTables = field(default_factory=SourceTables, repr=False)

    @property
    def entry(self) -> Computation:
        return self.computations[self.entry_name]

    @property
    def is_scheduled(self) -> bool:
        return self.attributes.get("is_scheduled", False) is True

    @property
    def num_partitions(self) -> int:
        return self.attributes.get("num_partitions", 1)

    @property
    def replica_count(self) -> int:
        return self.attributes.get("replica_count", 1)

    @property
    def frontend_attributes(self) -> dict[str, str]:
        return self.attributes.get("frontend_attributes", {})

    @property
    def instruction_count(self) -> int:
        return sum(len(c) for c in self.computations.values())

    def called(self, instruction: Instruction) -> tuple[Computation, ...]:
        """The computations that an instruction calls."""
        return tuple(self.computations[name] for name in instruction.called_computations)

    def source(self, instruction: Instruction) -> SourceLocation | None:
        """Where in the user's program the instruction comes from, or None where the text does not say.

        Reads the inline form (source_file, source_line) and the table form (stack_frame_id) of metadata.
        """
        m = instruction.metadata
        place = self.tables.location(m.stack_frame_id) if m.stack_frame_id else None
        if place is not None:
            return place
        if not m.source_file:
            return None
        return SourceLocation(m.source_file, m.source_line, "", m.source_column, m.source_end_line, m.source_end_column)

    def stack(self, instruction: Instruction) -> tuple[SourceLocation, ...]:
        """The instruction's source and its callers, innermost first; only the first where there are no tables."""
        frames = self.tables.stack(instruction.metadata.stack_frame_id)
        place = self.source(instruction)
        return frames or ((place,) if place else ())
