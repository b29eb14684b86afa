"""HLO text -> frozen values. Pure Python: no JAX, no other dependency."""

from llmjax.hlo.ir import Computation, Instruction, Module, Shape

__all__ = ["Computation", "Instruction", "Module", "Shape"]
