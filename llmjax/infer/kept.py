"""Compiled programs kept on disk: a second process runs them without tracing, lowering or compiling anything.

XLA's own cache is asked by the program's text, which takes most of the time to make; this one by what the text is made
from: this package's source, the versions, the machine and the arguments.

A kept program is machine code, and JAX wraps it in a pickle: whoever can write one makes its reader run what he likes.
So they lie in a folder of mode 0700, files and folders that others own or can write are passed over, and each begins
with a digest that only holders of the user's key can make: of another file, or after a flipped bit, it does not fit.
"""

import functools
import hashlib
import hmac
import os
import pickle
import platform
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from llmjax.files import atomic_write, cache_folder, private_folder, read_own

_BUILDING = threading.Lock()  # the setting that is changed meanwhile is the whole process's
_PACKAGE = Path(__file__).parent.parent
_FOLDER = "llmjax"  # below JAX's compilation cache folder
_DIGEST = hashlib.sha256


def kept(identity: str, build: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Returns what `build()` gives, some `jax.stages.Compiled`, from JAX's compilation cache folder if it is there.

    Args:
        identity: says which programs, by everything they depend on besides source, versions, settings and machine.
        build: compiles them. Where no cache folder is set, or it is no local one, it is simply called.
    """
    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"]
    if not folder or "://" in folder or not settings["jax_enable_compilation_cache"]:
        return build()
    name = _DIGEST((_surroundings() + identity).encode()).hexdigest()
    path = Path(folder).expanduser() / _FOLDER / name
    # A file may be damaged, not ours, or of a machine that only looks the same: anything may be raised, and compiling
    # mends it.
    with suppress(Exception):
        private_folder(path.parent)
        found = tuple(_load(*one) for one in pickle.loads(_opened(name, read_own(path))))
        if found:
            return found
    with _BUILDING, _uncached():
        programs = build()
    with suppress(Exception):  # a full disk, or a backend that cannot write its programs: only time is lost
        private_folder(path.parent)
        atomic_write(path, _sealed(name, pickle.dumps([_dump(program) for program in programs])), 0o600)
    return programs


def _dump(program: Any) -> tuple[Any, list[int]]:
    return serialize_executable.serialize(program), [one.id for one in program.runtime_executable().local_devices()]


def _load(serialized: tuple[Any, Any, Any], ids: list[int]) -> Any:
    """Returns a program on the devices that it was compiled for: it cannot run on more or fewer."""
    by_id = {one.id: one for one in jax.devices()}
    return serialize_executable.deserialize_and_load(*serialized, execution_devices=[by_id[id] for id in ids])


def _sealed(name: str, content: bytes) -> bytes:
    return hmac.digest(_key(), name.encode() + content, _DIGEST) + content


def _opened(name: str, sealed: bytes) -> bytes:
    """Returns what was sealed under that name; ValueError where anything else was."""
    size = _DIGEST().digest_size
    digest, content = sealed[:size], sealed[size:]
    if not hmac.compare_digest(digest, hmac.digest(_key(), name.encode() + content, _DIGEST)):
        raise ValueError("not sealed with this user's key")
    return content


def _key() -> bytes:
    """Returns this user's key, which is drawn once and lies in the user's own cache folder."""
    file = private_folder(cache_folder()) / "key"
    with suppress(FileExistsError), os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
        new.write(secrets.token_bytes(32))
    key = read_own(file)
    if len(key) != 32:
        file.unlink()  # a full disk left it: the next call draws another
        raise ValueError(f"{file}: not a key")
    return key


@contextmanager
def _uncached() -> Iterator[None]:
    """Compiles without JAX's own cache: XLA on CPU cannot write again what it has read (its functions are missing)."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


@functools.cache
def _surroundings() -> str:
    """Returns all that decides a program besides its arguments: versions, settings, device, processor, our source."""
    source = _DIGEST()
    for file in sorted(_PACKAGE.rglob("*.py")):
        source.update(file.read_bytes())
    settings = {name: value for name, value in jax.config.values.items() if "cache" not in name}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line for line in lines if line.startswith("flags")), platform.processor())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = [(one.platform, one.device_kind) for one in jax.devices()]
    versions = (jax.__version__, jaxlib.version.__version__, device[0], len(device), jax.process_index(), cores)
    return f"{versions}{sorted(settings.items())}{os.environ.get('XLA_FLAGS')}{processor}{source.hexdigest()}"
