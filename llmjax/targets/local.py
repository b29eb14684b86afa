"""A JAX function -> the HLO that XLA compiles for the device that is here."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from llmjax.errors import UserError


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on one device that the compiler reserves; `aliased` are outputs in the place of donated arguments."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int = 0

    @property
    def needed(self) -> int:
        """What must fit in main memory at once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


@dataclass(frozen=True)
class Program:
    """A compiled program: its HLO text, the platform it is for, and what XLA's own `cost_analysis()` says of it.

    `target` is the name of the chip (`tpu:v5e:2x2`), None = the default device. None also where it is not known:
    `memory`, and `compile_seconds` of what was compiled before. `executable` is what runs it, where the chip is here.
    """

    text: str
    backend: str
    cost_analysis: Any
    memory: MemoryUse | None = None
    compile_seconds: float | None = None
    target: str | None = None
    executable: Any = field(default=None, repr=False, compare=False)


def compile_here(program: Callable[..., Any] | Any, *args: Any, **kwargs: Any) -> Program:
    """Compiles a function for the default device, or takes what is compiled or lowered already.

    Args:
        program: a function, what `jax.jit` makes of one, or its `.lower(...)` or `.lower(...).compile()`.
        args, kwargs: what it will be called with; `jax.ShapeDtypeStruct`s will do. None for what is lowered already.

    Raises:
        UserError: `program` is none of these, or arguments were given to what is lowered already.
    """
    lowered = hasattr(program, "compile") or (hasattr(program, "as_text") and hasattr(program, "cost_analysis"))
    if lowered and (args or kwargs):
        raise UserError("analyze(...): the program is lowered already, so it takes no more arguments.")
    if not lowered and not callable(program):
        kind = type(program).__name__
        raise UserError(f"analyze({kind}): expected a function, or one that is jitted, lowered or compiled.")
    # A program from JAX's cache on disk may carry the source lines of an older text of the same function.
    key = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, key)
    jax.config.update(key, True)
    try:
        if not lowered:
            jitted = program if hasattr(program, "lower") else jax.jit(program)
            program = jitted.lower(*args, **kwargs)
        start = time.perf_counter()
        compiled = program.compile() if hasattr(program, "compile") else program
        seconds = time.perf_counter() - start if hasattr(program, "compile") else None
    finally:
        jax.config.update(key, before)
    own, memory = _own_count(compiled), memory_use(compiled)
    return Program(compiled.as_text(), _platform(compiled), own, memory, seconds, executable=compiled)


def arguments_of(compiled: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that a compiled program takes, by position and by name, as `jax.ShapeDtypeStruct`s."""

    def lying(info: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        on = sharding if sharding is not None and sharding.num_devices > 1 else None
        return jax.ShapeDtypeStruct(info.shape, info.dtype, sharding=on)

    return jax.tree.map(lying, compiled.args_info, compiled.input_shardings)


def devices_of(compiled: Any) -> int:
    """Returns how many devices of a mesh run a compiled program together."""
    return max((s.num_devices for s in jax.tree.leaves(compiled.input_shardings)), default=1)


def _platform(compiled: Any) -> str:
    try:
        return compiled.runtime_executable().local_devices()[0].platform
    except (AttributeError, IndexError, NotImplementedError, RuntimeError):
        return jax.default_backend()


def memory_use(compiled: Any) -> MemoryUse | None:
    """Returns what a compiled program reserves, None where its backend does not say."""
    try:
        stats = compiled.memory_analysis()
        kinds = ("argument", "output", "alias", "temp", "generated_code")
        return MemoryUse(*(int(getattr(stats, f"{kind}_size_in_bytes")) for kind in kinds))
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):  # not every backend says
        return None


def _own_count(compiled: Any) -> Any:
    try:
        return compiled.cost_analysis()
    except (NotImplementedError, RuntimeError, ValueError):  # not every backend has one
        return None
