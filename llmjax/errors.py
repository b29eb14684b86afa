"""Errors for people, and files that are never half-written."""

import difflib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake that the person at the keyboard can mend.

    Its message is one clear line: the value, where it came from and what to do. `launch.py` prints the line and exits
    with status 2; no traceback is shown.
    """


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the valid name nearest to `name`, or "" when none is near."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def atomic_write(path: str | Path, content: str | bytes) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the whole new one, never a part.

    The parent folder is made if it is absent. Text is written as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
