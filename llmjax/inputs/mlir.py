"""StableHLO, as MLIR text, bytecode or a portable artifact -> a compiled program. JAX is imported where one is met."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmjax.errors import UserError

if TYPE_CHECKING:
    from llmjax.targets.local import Program

BYTECODE = b"ML\xefR"
_TEXT = re.compile(r"\s*(?://[^\n]*\n\s*)*(?:#[\w.]+ = [^\n]*\n\s*)*(?:module\b[^\n]*\{|func\.func\b)")


def is_mlir(data: bytes) -> bool:
    """Whether a file is MLIR: StableHLO, mostly."""
    return data.startswith(BYTECODE) or bool(_TEXT.match(data[:20_000].decode(errors="replace")))


def compile_mlir(data: bytes, where: str, target: str = "") -> Program:
    """Compiles StableHLO for a chip that need not be here, or for this machine's CPU.

    Args:
        data: MLIR text or bytecode, of StableHLO or of what it is exported as (VHLO).
        where: what holds it, for errors.

    Raises:
        UserError: it is not StableHLO, or its compiler refuses it or is not installed.
        ModuleNotFoundError: JAX is not installed.
    """
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    from llmjax.targets.aot import Lowered, compile_lowered
    from llmjax.targets.names import parse_target

    chip = parse_target(target or "cpu")
    if chip.attached:
        raise UserError(
            f"target {target!r}: StableHLO is compiled for a chip by its name, such as tpu:v5e or gpu:h100."
        )
    with mlir.make_ir_context() as context:
        try:
            module = stablehlo.deserialize_portable_artifact(context, data) if data[:4] == BYTECODE else None
        except Exception:  # bytecode of StableHLO itself is none
            module = None
        try:
            module = module or ir.Module.parse(data)
        except Exception as error:
            raise UserError(f"{where} is MLIR that JAX does not read as StableHLO: {_line(error)}.") from error
        main = _main(module)
        if main is None:
            raise UserError(f"{where} is MLIR without a public function: there is nothing to compile.")
        kind = main.attributes["function_type"].value
        options = {
            "num_devices": _partitions(module),
            "free_inputs": [True] * len(kind.inputs),
            "free_outputs": [True] * len(kind.results),
            "compiler_options": {},
        }
        return compile_lowered(chip, Lowered(chip.platform, mlir.module_to_bytecode(module), options))


def _main(module: Any) -> Any:
    """The function that is called from outside, under the name that compilers look for."""
    from jaxlib.mlir import ir

    functions = [op for op in module.body.operations if op.operation.name == "func.func"]
    found = [op for op in functions if ir.StringAttr(op.attributes["sym_name"]).value == "main"] or [
        op
        for op in functions
        if "sym_visibility" not in op.attributes or ir.StringAttr(op.attributes["sym_visibility"]).value == "public"
    ]
    if len(found) != 1:
        return None
    found[0].attributes["sym_name"] = ir.StringAttr.get("main")
    return found[0]


def _partitions(module: Any) -> int:
    """How many devices the module says that it is divided over; one where it does not."""
    from jaxlib.mlir import ir

    attributes = module.operation.attributes
    found = [ir.IntegerAttr(attributes[name]).value for name in ("mhlo.num_partitions", "mhlo.num_replicas")
             if name in attributes]  # fmt: skip
    return max([1, *found])


def _line(error: Exception) -> str:
    """What MLIR says is wrong: of its lines the first that names a place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "error:" in line), lines[-1] if lines else type(error).__name__)
    return told.rstrip(".:")
