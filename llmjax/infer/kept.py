"""Compiled programs kept on disk: a second process runs them without tracing, lowering or compiling anything.

XLA's own cache is asked by the program's text, which takes most of the time to make; this one by what the text is made
from: this package's source, the versions, the machine and the arguments.

A kept program is machine code: whoever can write one makes its reader run what he likes. So they lie in a folder of
mode 0700, files and folders that others own or can write are passed over, and each begins with a digest that only
holders of the user's key can make: of another file, or after a flipped bit, it does not fit. What follows is JSON and
XLA's own serialisation. JAX's (jax.experimental.serialize_executable) is a pickle, which runs Python where it is read.
"""

import dataclasses
import functools
import hashlib
import hmac
import json
import os
import platform
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jaxlib import xla_client  # seen in jaxlib 0.10 and 0.12: its executables are written, read and run here

from llmjax.files import atomic_write, cache_folder, private_folder, read_own
from llmjax.infer.tree_json import described, rebuilt

_BUILDING = threading.Lock()  # the setting that is changed meanwhile is the whole process's
_PACKAGE = Path(__file__).parent.parent
_FOLDER = "llmjax"  # below JAX's compilation cache folder
_DIGEST = hashlib.sha256


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A program of one device that was read back: called as a `jax.stages.Compiled` is, with the same arguments."""

    executable: Any
    device: Any
    results: Any  # a PyTreeDef

    def __call__(self, *arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        on_host = [at for at, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray | np.generic)]
        put = jax.device_put([leaves[at] for at in on_host], self.device)
        for at, leaf in zip(on_host, put, strict=True):
            leaves[at] = leaf
        arrays = self.executable.execute_sharded(leaves).disassemble_into_single_device_arrays()
        return self.results.unflatten([array for (array,) in arrays])


def kept(
    identity: str, build: Callable[[], tuple[jax.stages.Compiled, ...]], kinds: tuple[type, ...] = ()
) -> tuple[Any, ...]:
    """Returns what `build()` gives, from JAX's compilation cache folder if it is there.

    Args:
        identity: says which programs, by everything they depend on besides source, versions, settings and machine.
        build: compiles them. Where no cache folder is set, or it is no local one, it is simply called; programs of
            several devices, or that leave an argument out (`jax.jit`'s `keep_unused`), are not kept either.
        kinds: the named tuples and dataclasses that their results are made of.
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
        return _read(_opened(name, read_own(path)), kinds)
    with _BUILDING, _uncached():
        programs = build()
    with suppress(Exception):  # a full disk, or a backend that cannot write its programs: only time is lost
        private_folder(path.parent)
        atomic_write(path, _sealed(name, _written(programs, kinds)), 0o600)
    return programs


def _written(programs: tuple[jax.stages.Compiled, ...], kinds: tuple[type, ...]) -> bytes:
    """Returns a line of JSON that describes programs, and then the programs; ValueError: they cannot be kept."""
    about, codes = [], []
    for program in programs:
        executable: Any = program.runtime_executable()
        (device,) = executable.local_devices()
        if len(executable.get_parameter_layouts()) != len(jax.tree.leaves(program.args_info)):
            raise ValueError("an argument was left out")
        codes.append(executable.serialize())
        results = described(program.out_tree, kinds)
        about.append({"bytes": len(codes[-1]), "device": device.id, "results": results})
    return b"".join([json.dumps(about).encode(), b"\n", *codes])


def _read(content: bytes, kinds: tuple[type, ...]) -> tuple[Program, ...]:
    """Returns the programs, each on the device that it was compiled for: it runs on no other."""
    line, _, codes = content.partition(b"\n")
    devices, programs, at = {one.id: one for one in jax.devices()}, [], 0
    for one in json.loads(line):
        device, code = devices[one["device"]], codes[at : at + one["bytes"]]
        client: Any = device.client
        executable = client.deserialize_executable(code, executable_devices=xla_client.DeviceList((device,)))
        programs.append(Program(executable, device, jax.tree.structure(rebuilt(one["results"], kinds))))
        at += len(code)
    return tuple(programs)


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
