"""HLO text -> frozen values. Pure Python: no JAX, no other dependency."""

from llmjax.hlo.document import split_modules
from llmjax.hlo.ir import Computation, Instruction, Module, Shape
from llmjax.hlo.lexer import HloParseError
from llmjax.hlo.parser import parse

__all__ = ["Computation", "HloParseError", "Instruction", "Module", "Shape", "parse", "split_modules"]
