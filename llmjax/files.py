"""Where files go, how they are never half-written, and whom what is read from a cache must belong to."""

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmjax.errors import UserError

SUMS = "sha256sums.txt"


def cache_folder() -> Path:
    """Returns llmjax's folder under the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llmjax"


def atomic_write(path: str | Path, content: str | bytes, mode: int | None = None) -> None:
    """Writes `content` to `path` as `appearing` does; text as UTF-8."""
    with appearing(path, mode) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def appearing(path: str | Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Opens a file for writing so that a reader of `path` sees the old file or the whole new one, never a part.

    Links are followed: what they point to is written. The parent folder is made if it is absent. What is there and no
    regular file (a device, a pipe), or is named under /dev or /proc, is written to straight: a rename would put a file
    in its place. `mode` are the permissions; None: those of the file that was there, else what the umask leaves.
    """
    path = Path(path)
    try:
        with _appearing(path, mode) as stream:
            yield stream
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # which say nothing of the file
            error.filename = error.filename or str(path)
        raise


@contextmanager
def _appearing(path: Path, mode: int | None) -> Iterator[BinaryIO]:
    before = path.stat() if path.exists() else None
    named = os.path.abspath(path)
    if (before and not stat.S_ISREG(before.st_mode)) or named.startswith(("/dev/", "/proc/")):
        with path.open("wb") as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if mode is None:
            mode = stat.S_IMODE(before.st_mode) if before else default_mode()
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def default_mode() -> int:
    """Returns the permissions that the umask leaves a new file."""
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def others_may_change(found: os.stat_result) -> str:
    """Returns why a file or folder may hold what somebody else put there, in words, or ""."""
    if not hasattr(os, "geteuid"):
        return ""
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}"
    return "others can write to it" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""


def private_folder(folder: Path) -> Path:
    """Returns `folder`, which nobody but this user can read or write; made if it is absent.

    Raises:
        UserError: it belongs to somebody else, or others can write to it: what is in it may not be ours.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    why = others_may_change(folder.stat())
    if why:
        raise UserError(f"{folder}: {why}, so what is in it is not trusted: remove it, or set XDG_CACHE_HOME.")
    if stat.S_IMODE(folder.stat().st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def read_own(file: Path) -> bytes:
    """Returns what a file holds that this user wrote and nobody else can; any other, and a link, is an OSError."""
    with os.fdopen(os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as stream:
        found = os.fstat(stream.fileno())
        why = "it is no file" if not stat.S_ISREG(found.st_mode) else others_may_change(found)
        if why:
            raise PermissionError(f"{file}: {why}")
        return stream.read()


def write_sums(folder: Path, files: Sequence[Path] = ()) -> None:
    """Writes the SHA-256 of files in `folder`, of all without any named, beside them, as `sha256sum -c` reads them."""
    lines = [f"{_sum(file)}  {file.relative_to(folder).as_posix()}\n" for file in files or _files(folder)]
    atomic_write(folder / SUMS, "".join(lines))


def damaged(folder: Path) -> list[str]:
    """Returns the files that are missing or not as `write_sums` found them; none where it never ran."""
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return [SUMS]
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    return [name for name, digest in sums.items() if name not in there or _sum(there[name]) != digest]


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
