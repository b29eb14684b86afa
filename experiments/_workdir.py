"""A training run's folder: whose it is, with which settings it began, and what it gave."""

import json
import shlex
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments._settings import leaves
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.parallel.processes import agree, leads, wait_for_all

RESULTS = "eval.json"  # written last: a folder that has it is a finished run
_DATA = "data.fingerprint"
_SHOWN = ("examples",)  # settings that a stopped run may change: they decide nothing that is trained


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the system lets go of it with the process, however that ends.

    Of several processes, the one that writes holds it for all.

    Raises:
        UserError: another run holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    if not leads():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{folder}: another run is at work there: wait for it, or use another --workdir.") from error
    try:
        yield
    finally:
        lock.release()


def flat_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Returns every setting that a run's numbers depend on, under its dotted name, as JSON would give it back.

    On which devices it runs is none of them: a run goes on on others.
    """
    return json.loads(json.dumps(leaves({name: value for name, value in values.items() if name != "mesh"})))


def fingerprint(arrays: Iterable[np.ndarray]) -> int:
    """Returns a checksum of a run's data, so that data which changed under it are noticed."""
    value = 0
    for array in arrays:
        value = zlib.crc32(array.tobytes(), value)
    return value


def results(folder: Path, values: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the results of a finished run in `folder`, or None; other settings than that run's are refused."""
    file = folder / RESULTS
    if not file.exists():
        return None
    _refuse_changes(folder, flat_settings(values))
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: is not JSON ({error}): remove it, and the run makes it again.") from error


def show(show_results: Callable[[dict[str, Any], Path], None], found: dict[str, Any], folder: Path) -> None:
    """Shows the results of a finished run once more; a file that no run wrote so is a `UserError`."""
    try:
        show_results(found, folder)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / RESULTS}: is not as a run writes it ({type(error).__name__}: {error}): remove it, and the run"
            " makes it again."
        ) from error


def claim(folder: Path, settings: dict[str, Any], begun: bool = False) -> None:
    """Writes down the settings of the run in `folder`; refuses others where a run has left checkpoints, or is `begun`.

    Raises:
        UserError: that, or one of several processes has other settings or data, or another folder.
    """
    agree(settings)
    last = folder / "checkpoints" / "last"
    if begun or (last.is_dir() and any(path.name.isdigit() for path in last.iterdir())):
        _refuse_changes(folder, {name: value for name, value in settings.items() if name not in _SHOWN})
    if leads():
        atomic_write(folder / "config.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    wait_for_all("claim")
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: is not the folder that process 0 has: all processes must see one --workdir.")


def _refuse_changes(folder: Path, settings: dict[str, Any]) -> None:
    """Raises `UserError` where the run in `folder` has other settings, which says what to pass to go on with it."""
    try:
        stored = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return
    if not isinstance(stored, dict):
        return
    before, now = _meant(stored), _meant(settings)
    changed = {name: value for name, value in now.items() if name in before and value not in (before[name], None)}
    if not changed:
        return
    name, value = next(iter(changed.items()))
    if set(changed) == {_DATA}:
        raise UserError(f"{folder} holds a run on other data than these: use its data, or another --workdir")
    passed = [_typed(setting, before[setting]) for setting in changed if setting != _DATA]
    raise UserError(
        f"{folder} holds a run with {name}={before[name]!r}, now it is {value!r}: use another --workdir, or go on with "
        f"that run by {' '.join(passed)}"
    )


def _meant(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings by what they come to: what was chosen in place of what was open, an empty source as it is read.

    So a run goes on that was begun when these had to be said.
    """
    found = {**settings, **settings.get("chosen", {})}
    found.pop("chosen", None)
    if found.get("data.source") == "":
        files = any(found.get(f"data.{name}") for name in ("train", "dev", "test"))
        found["data.source"] = "files" if files else "vader_movies"
    return found


def _typed(name: str, value: Any) -> str:
    """Returns how a setting is given on the command line."""
    if value is None:
        return f"(without --config.{name})"
    listed = isinstance(value, list)
    plain = listed and not any("," in str(item) for item in value)
    text = ",".join(map(str, value)) if plain else str(tuple(value)) if listed else str(value)
    return shlex.quote(f"--config.{name}={text}")
