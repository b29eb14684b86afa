"""A program as it was brought, before it is analysed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmjax.cost.buffers import Buffers
from llmjax.cycles.measured import Profile
from llmjax.hlo import Module


@dataclass(frozen=True)
class Source:
    """One module's HLO text, and what is known of it beside the text.

    label: names its files; title: its screen. module: the text, parsed. backend, target: what it was compiled for, None
    where only the text tells. compiler: XLA's own totals. trips: of a loop whose length the text does not say.
    measured: times of its ops. mesh: sizes of the axes over which it is divided. buffers: memory that the compiler
    reserves. copies: modules of this very text among what was brought.
    """

    label: str
    title: str
    text: str = field(repr=False)
    module: Module = field(repr=False)
    backend: str | None = None
    target: str | None = None
    compiler: Any = None
    trips: int | None = None
    measured: Profile | None = None
    mesh: Mapping[str, int] | None = None
    buffers: Buffers | None = None
    copies: int = 1

    @property
    def told(self) -> str:
        """Its label, and how often its text was met."""
        return self.label + (f" x{self.copies}" if self.copies > 1 else "")
