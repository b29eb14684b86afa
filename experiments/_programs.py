"""What a job compiles: a function of the user's own, which needs JAX alone, or a phase of a model."""

from collections.abc import Callable
from typing import Any, NamedTuple

from llmjax.inputs.function import Size, jitted, read_call


class Phase(NamedTuple):
    """A jitted function, its abstract arguments, and what they are in a line for people.

    `trips` is how often a loop runs whose length the program leaves open, None where it has none.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    summary: str
    trips: int | None = None


class Shape(NamedTuple):
    """What a phase is compiled for; settings of the same names in configs/cost.py say what each is.

    `function` and `args` are the user's own in place of a phase of a model.
    """

    model: str
    phase: str
    batch: int
    length: int
    new_tokens: int
    dtype: str
    kv_cache: str = ""
    function: str = ""
    args: str = ""


def build(shape: Shape) -> Phase:
    """Returns the phase that `shape` names; a value that does not fit raises `UserError`."""
    if shape.function:
        call = jitted(read_call(shape.function, shape.args, Size(shape.batch, shape.length, shape.dtype)))
        sized = f": batch {shape.batch}, length {shape.length}, {shape.dtype}"
        told = sized if shape.function.startswith("hf:") else f"({shape.args})" if shape.args else ""
        return Phase(call.function, call.args, shape.function + told)
    from experiments._phases import of_model  # Flax and all that models need

    return of_model(shape)
