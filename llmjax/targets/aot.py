"""A JAX function -> the HLO that XLA compiles for a chip that need not be here.

The function is lowered here, for the platform of the target; its StableHLO goes as bytecode to a child process, whose
environment is clean, because an installed TPU or GPU plugin otherwise takes the default backend. The bytecode carries
names, source lines, shardings and donation, so the text is the one that a machine with the chip would compile.
"""

import contextlib
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from llmjax.errors import UserError
from llmjax.files import atomic_write, cache_folder
from llmjax.targets.local import MemoryUse, Program, compile_here
from llmjax.targets.names import Target, parse_target

WORKER = Path(__file__).with_name("worker.py")
# What libtpu asks a TPU's host for, answered: any valid answer will do, the topology is named apart.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "XLA_FLAGS", "LIBTPU_INIT_ARGS")
_PLUGINS = {"tpu": ("libtpu", "aot-tpu"), "cuda": ("jax_plugins.xla_cuda12", "aot-gpu")}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")


@dataclass(frozen=True)
class Lowered:
    """A program for a platform (cpu, tpu, cuda): StableHLO bytecode, and what else its compiler is told."""

    platform: str
    program: bytes
    options: Mapping[str, Any]


def compile_for(target: str, program: Callable[..., Any], *args: Any, **kwargs: Any) -> Program:
    """Compiles a function for a chip by name; results are kept in the user's cache folder, by content.

    Args:
        target: `cpu`, `gpu:h100`, `tpu:v5e:2x2`, ... (`targets.names`), or `gpu` / `tpu`: the one in this machine.
        program: a function, or what `jax.jit` makes of one. It runs on one chip unless its arguments' shardings (over
            a `jax.sharding.AbstractMesh`, as the chips are not here) say more.
        args, kwargs: what it will be called with; `jax.ShapeDtypeStruct`s will do.

    Raises:
        UserError: no such target, its compiler is not installed, or it refuses the program.
    """
    chip = parse_target(target)
    if chip.attached:
        return _compile_attached(chip, program, args, kwargs)
    return compile_lowered(chip, lower_for(chip.platform, program, *args, **kwargs))


def lower_for(platform: str, program: Callable[..., Any], *args: Any, **kwargs: Any) -> Lowered:
    """Lowers a function for a platform: all chips of a platform take the same StableHLO."""
    from jax._src.interpreters import mlir

    if not callable(program) or hasattr(program, "compile"):
        raise UserError("a target takes a function or a jitted one: what is lowered already is for the device here.")
    jitted: Any = program if hasattr(program, "trace") else jax.jit(program)
    lowered = jitted.trace(*args, **kwargs).lower(lowering_platforms=(platform,))
    lowering = lowered._lowering
    told = lowering.compile_args
    first = [False] * len(told.get("ordered_effects", ()))
    options = {
        "num_devices": int(told.get("num_devices", 1)),
        "free_inputs": first + [_is_free(s) for s in told["in_shardings"]],
        "free_outputs": first + [_is_free(s) for s in told["out_shardings"]],
        "compiler_options": dict(getattr(lowering, "_compiler_options_kvs", ()) or ()),
    }
    return Lowered(platform, mlir.module_to_bytecode(lowered.compiler_ir("stablehlo")), options)


def _is_free(sharding: Any) -> bool:
    """Whether the compiler may choose the sharding."""
    return type(sharding).__name__ in ("UnspecifiedValue", "AUTO")


def compile_lowered(target: Target, lowered: Lowered, folder: Path | None = None) -> Program:
    """Compiles what `lower_for` gives for one chip of its platform, or takes it from the cache.

    Args:
        folder: of the cache; None = `aot` in llmjax's.

    Raises:
        UserError: the compiler is not installed, or refuses the program.
    """
    request = {
        "platform": lowered.platform,
        "topology": target.topology,
        "target_config": target.config,
        **lowered.options,
    }
    key = hashlib.sha256(lowered.program + json.dumps([request, _versions(lowered.platform)]).encode()).hexdigest()
    file = (folder or cache_folder() / "aot") / f"{key}.json.gz"
    result = _cached(file)
    if result is None:
        _check_plugin(target)
        result = _compile(target, request, lowered.program)
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            atomic_write(file, gzip.compress(json.dumps(result).encode(), 3))
    memory = MemoryUse(**result["memory"]) if result["memory"] else None
    backend = "gpu" if lowered.platform == "cuda" else lowered.platform
    seconds = result["compile_seconds"]
    return Program(result["text"], backend, result["cost_analysis"], memory, seconds, target.name)


def _compile(target: Target, request: dict[str, Any], program: bytes) -> dict[str, Any]:
    result = _child(request, program)
    if "error" in result:
        raise UserError(f"target {target.name!r}: {_one_line(result['error'])}")
    return result


def _child(request: dict[str, Any], program: bytes) -> dict[str, Any]:
    """What worker.py makes of the request: its result, {"error": ...} where it fails."""
    with tempfile.TemporaryDirectory(prefix="llmjax-aot-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request))
        (folder / "program.mlirbc").write_bytes(program)
        command = [sys.executable, "-P", str(WORKER), name]
        done = subprocess.run(command, env=_environment(_cpus(request)), cwd=name, capture_output=True, check=False)
        try:
            result = json.loads((folder / "result.json").read_text())
        except (OSError, ValueError):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            fatal = next((line for line in said if re.match(r"F\d{4} |.*Check failed|.*[Ee]rror:", line)), "")
            end = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit status {done.returncode}"
            return {"error": f"the compiler died ({end}). {fatal or (said[-1] if said else '')}"}
        return result if "error" in result else result | {"text": (folder / "program.hlo").read_text()}


def _cpus(request: dict[str, Any]) -> int:
    """How many devices the child is to take this machine's CPU for."""
    return request["num_devices"] if request["platform"] == "cpu" else 1


def _environment(cpus: int = 1) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    if cpus > 1:
        kept["XLA_FLAGS"] = f"{kept.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={cpus}".strip()
    path = os.pathsep.join(p for p in sys.path if p)
    told = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2", **TPU_ENVIRONMENT}
    return kept | told


def _compile_attached(target: Target, program: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    try:
        device = jax.devices(target.name)[0]
    except RuntimeError as error:
        raise UserError(
            f"target {target.name!r}: no {target.name.upper()} is attached; name a chip to compile for, such as"
            f" {'gpu:h100' if target.name == 'gpu' else 'tpu:v5e:2x2'}."
        ) from error
    with jax.default_device(device):
        return compile_here(program, *args, **kwargs)


def _check_plugin(target: Target) -> None:
    module, extra = _PLUGINS.get(target.platform, ("", ""))
    try:
        missing = bool(module) and importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise UserError(f"target {target.name!r} needs a compiler that is not installed: pip install 'llmjax[{extra}]'")


def _versions(platform_: str) -> list[str]:
    """What else decides the compiled text: versions, flags, and of the CPU this machine's own."""
    found = [WORKER.read_text(), *(os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"))]
    for package in _PACKAGES:
        try:
            found.append(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            found.append("")
    return [*found, *_cpu()] if platform_ == "cpu" else found


def _cpu() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    kinds = ("model name", "flags", "Features")
    return [str(os.cpu_count()), *sorted({line for line in lines if line.startswith(kinds)})]


def _cached(file: Path) -> dict[str, Any] | None:
    try:
        result = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, ValueError):  # absent, or damaged: compiled anew
        return None
    return result if isinstance(result, dict) and "text" in result else None


def _one_line(error: str) -> str:
    """The part of a compiler's complaint that says what is wrong."""
    used = re.search(r"Used (\S+) of (\S+) (\w+)\. Exceeded \w+ capacity by ([\d.]+\w*)", error)
    if used:
        return f"the program does not fit: it needs {used[1]} of {used[2]} {used[3]}, {used[4]} too much."
    total = re.search(r"memory required for ([^()]+) \(([\d.]+)(\w?)\) exceeds available \w+ \(([\d.]+)(\w?)\)", error)
    if total:
        over = float(total[2]) * _UNITS[total[3]] - float(total[4]) * _UNITS[total[5]]
        need, room = total[2] + total[3], total[4] + total[5]
        return f"the program does not fit: it needs {need} for {total[1]} of {room}, {over / 2**30:.2f}G too much."
    line = next((line.strip() for line in error.splitlines() if line.strip()), "unknown error")
    return f"the compiler refuses: {line[:300]}"
