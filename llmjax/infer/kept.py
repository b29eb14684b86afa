"""Compiled programs kept on disk: a second process runs them without tracing, lowering or compiling anything.

XLA's own cache is asked by the program's text, which takes most of the time to make; this one by what the text is made
from: this package's source, the versions, the machine and the arguments.
"""

import functools
import hashlib
import os
import pickle
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from llmjax.files import atomic_write

_BUILDING = threading.Lock()  # the setting that is changed meanwhile is the whole process's
_SOURCES = (Path(__file__).parent, Path(__file__).parent.parent / "gpt2")


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
    path = Path(folder) / f"llmjax-{hashlib.sha256((_surroundings() + identity).encode()).hexdigest()}"
    # A file may be damaged, or of a machine that only looks the same: anything may be raised, and compiling mends it.
    with suppress(Exception):
        found = tuple(serialize_executable.deserialize_and_load(*one) for one in pickle.loads(path.read_bytes()))
        if found:
            return found
    with _BUILDING, _uncached():
        programs = build()
    with suppress(Exception):  # a full disk, or a backend that cannot write its programs: only time is lost
        atomic_write(path, pickle.dumps([serialize_executable.serialize(program) for program in programs]))
    return programs


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
    source = hashlib.sha256()
    for file in sorted(file for folder in _SOURCES for file in folder.glob("*.py")):
        source.update(file.read_bytes())
    settings = {name: value for name, value in jax.config.values.items() if "cache" not in name}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = next((line for line in lines if line.startswith("flags")), platform.processor())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = [(one.platform, one.device_kind) for one in jax.devices()]
    versions = (jax.__version__, jaxlib.version.__version__, device[0], len(device), cores)
    return f"{versions}{sorted(settings.items())}{os.environ.get('XLA_FLAGS')}{processor}{source.hexdigest()}"
