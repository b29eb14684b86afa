"""Shapes that hand-written HLO leaves out."""

from __future__ import annotations

from typing import Any

from llmjax.hlo.shape import Shape


def infer_shape(opcode: str, operands: list[Shape], attributes: dict[str, Any]) -> Shape:
    raise ValueError(f"a shape before {opcode!r}: it cannot be told from its operands")
