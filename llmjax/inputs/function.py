"""`my.py:step`, a function in a user's file or a factory of one, or `hf:CONFIG` -> what is compiled.

JAX is imported by the file.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from llmjax.errors import UserError, did_you_mean
from llmjax.inputs.arguments import read_arguments

PACKAGE = Path(__file__).resolve().parents[1]
_FRAMES = 4  # of a traceback: the last in the user's own files
_SHAPES = "--args 'f32[8,128], i32[8]' says how its arguments look"


@dataclass(frozen=True)
class Call:
    """A function and what it is called with: arrays, abstract values (their shardings count), other values."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()


class Size(NamedTuple):
    """What a model of transformers is called with: rows, tokens a row, the type of weights and computation."""

    batch: int = 1
    length: int = 128
    dtype: str = "float32"


def read_call(word: str, words: str = "", size: Size | None = None) -> Call:
    """Returns what a word names: a function in a file (`read_function`), or a model by its config (`hugging_face`)."""
    if word.startswith("hf:"):
        from llmjax.inputs.hugging_face import read_model

        if words:
            raise UserError(f"--args: {word} takes --batch, --length and --dtype.")
        return read_model(word, *(size or Size()))
    return read_function(word, words)


def is_function(word: str) -> bool:
    """Whether a word names a function in a file, `my.py:step`, or a model, `hf:CONFIG`, and not a file."""
    if word.startswith("hf:"):
        return True
    file, colon, name = word.rpartition(":")
    return bool(colon) and file.endswith(".py") and name.isidentifier()


def from_anywhere(word: str) -> str:
    """Returns the word with its file's whole path, for a process that runs in another folder."""
    if word.startswith("hf:"):
        path = Path(word[3:]).expanduser()
        return f"hf:{path.resolve()}" if path.exists() else word
    file, _, name = word.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{name}"


def read_function(word: str, words: str = "") -> Call:
    """Loads a file, and returns the function that was named with the arguments that were described.

    Without a description a function that needs arguments is refused, and one that needs none is called: it is a factory
    where it returns (function, args), and otherwise the function itself.

    Args:
        word: `my.py:step`.
        words: what its arguments look like (`arguments.read_arguments`).

    Raises:
        UserError: the file or the function is not there, fails, or does not fit; what Python said of the user's own
            lines is in the message.
    """
    file, _, name = word.rpartition(":")
    module = _load(Path(file).expanduser(), file)
    if not hasattr(module, name):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise UserError(f"{file} has no {name!r}.{did_you_mean(name, names)}")
    function = getattr(module, name)
    if not callable(function):
        raise UserError(f"{word} is {type(function).__name__}, not a function.")
    if words:
        return Call(word, function, read_arguments(words))
    needed = _needed(function)
    if needed:
        raise UserError(f"{word} needs {', '.join(needed)}: {_SHAPES}.")
    made = attempt(word, function) if not hasattr(function, "lower") else None
    if isinstance(made, tuple) and len(made) == 2 and callable(made[0]) and isinstance(made[1], tuple | list):
        return Call(word, made[0], tuple(made[1]))
    return Call(word, function)


def jitted(call: Call) -> Call:
    """Returns a call of what is to be lowered; lowering that fails says so in the user's own lines.

    What JAX has not jitted is. Its arguments may hold what `jax.jit` does not take, as modules of Equinox do: strings,
    booleans, functions and the like are constants of the program; so is a number where the function is jitted in
    another library's way, which would take it for one. None stands where they stood.
    """
    import jax

    function = call.function
    if hasattr(function, "trace"):  # jitted by JAX
        return Call(call.name, _Told(call.name, function), call.args)
    numbers = () if hasattr(function, "lower") else (int, float, complex)
    leaves, structure = jax.tree.flatten(call.args)
    varies = [_is_array(leaf) or (isinstance(leaf, numbers) and not isinstance(leaf, bool)) for leaf in leaves]
    if all(varies):
        return Call(call.name, _Told(call.name, jax.jit(function)), call.args)

    @functools.wraps(function, updated=())
    def with_constants(*args: Any) -> Any:
        given = iter(jax.tree.leaves(args))
        return function(*structure.unflatten(next(given) if v else c for v, c in zip(varies, leaves, strict=True)))

    args = structure.unflatten(leaf if v else None for v, leaf in zip(varies, leaves, strict=True))
    return Call(call.name, _Told(call.name, jax.jit(with_constants)), args)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


class _Told:
    """A jitted function whose failures are told in the user's own lines."""

    def __init__(self, name: str, made: Any) -> None:
        self.name, self.made = name, made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return attempt(self.name, self.made, *args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Any:
        return attempt(self.name, self.made.lower, *args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> Any:
        return attempt(self.name, self.made.trace, *args, **kwargs)


def attempt(word: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls what the user wrote, or what compiles it. Raises UserError, with their own lines, where it fails."""
    try:
        return function(*args, **kwargs)
    except UserError:
        raise
    except Exception as error:
        raise UserError(theirs(word, error)) from error


def theirs(word: str, error: BaseException) -> str:
    """Returns what went wrong in a user's file: their own lines, and Python's last one."""
    home = Path(word.rpartition(":")[0] or ".").expanduser().resolve().parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_theirs(f.filename, home)]
    lines = [f"  {Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames[-_FRAMES:]]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append(f"  {Path(error.filename).name}:{error.lineno}: {(error.text or '').strip()}")
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()
    last = next((line for line in reversed(said) if line and not line.startswith("-" * 10)), type(error).__name__)
    first = said[0] if said and not isinstance(error, SyntaxError) else last
    return "\n".join([f"{word} fails:", *lines, f"  {first}"])


def _is_theirs(filename: str, home: Path) -> bool:
    file = Path(filename)
    return file.is_relative_to(home) and not file.is_relative_to(PACKAGE) and "site-packages" not in file.parts


def _needed(function: Callable[..., Any]) -> Sequence[str]:
    """Names of the arguments without which a function cannot be called."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _load(path: Path, shown: str) -> ModuleType:
    """Runs a file as Python runs a script: what lies beside it can be imported."""
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"{shown!r} does not exist.{did_you_mean(path.name, near)}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = f"_{path.stem}_of_a_user"  # a file may be called as a module that is there already
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{shown!r} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(theirs(f"{shown}:", error).replace(":: fails", " fails")) from error
    return module
