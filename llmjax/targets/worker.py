"""Compiles one lowered program for a chip: the child process of aot.py.

`python -P worker.py FOLDER` reads FOLDER/request.json and FOLDER/program.mlirbc and writes FOLDER/result.json, and
FOLDER/program.hlo where compilation succeeds. It imports nothing of llmjax: the child may run with JAX alone.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

MEMORY = {
    "arguments": "argument_size_in_bytes",
    "outputs": "output_size_in_bytes",
    "aliased": "alias_size_in_bytes",
    "temporaries": "temp_size_in_bytes",
    "code": "generated_code_size_in_bytes",
}


def devices(request: dict[str, Any]) -> list[Any]:
    """The devices of the target: the topology's, made up by its compiler, or this machine's CPU."""
    import jax
    from jax.experimental import topologies

    if request["platform"] == "tpu":
        joined = {"chip_config_name": request["target_config"]} if request["target_config"] else {}
        return list(topologies.get_topology_desc(topology_name=request["topology"], platform="tpu", **joined).devices)
    if request["platform"] == "cuda":
        shape = f"1x1x{request['num_devices']}"
        return list(
            topologies.get_topology_desc(
                "", platform="cuda", topology=shape, target_config=request["target_config"]
            ).devices
        )
    return jax.devices("cpu")


def compile_program(request: dict[str, Any], program: bytes) -> tuple[str, dict[str, Any]]:
    """Returns the optimised HLO text and what else the result says.

    It hands the StableHLO to the compiler as `jax.jit` does: donation, names and source lines are in the module, and
    which shardings the compiler may choose is in the options.
    """
    import numpy as np
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]
    from jaxlib.mlir import ir

    found, count = devices(request), request["num_devices"]
    if len(found) < count:
        raise ValueError(f"the program is for {count} devices, and there are {len(found)}")
    client, used = found[0].client, tuple(found[:count])
    options = compiler.get_compile_options(
        1, count, np.array([used], dtype=object), dict(request["compiler_options"]), backend=client
    )
    build = options.executable_build_options
    build.allow_spmd_sharding_propagation_to_parameters = request["free_inputs"]
    build.allow_spmd_sharding_propagation_to_output = request["free_outputs"]
    compile_ = client.compile_and_load if request["platform"] == "cpu" else client.compile
    with mlir.make_ir_context():
        module = ir.Module.parse(program)
        start = time.perf_counter()
        executable = compile_(module, executable_devices=_jax.DeviceList(used), compile_options=options)
        seconds = time.perf_counter() - start
    return "\n\n".join(m.to_string() for m in executable.hlo_modules()), {
        "compile_seconds": seconds,
        "memory": memory(executable),
        "cost_analysis": cost_analysis(executable),
        "device_kind": found[0].device_kind,
        "topology_devices": len(found),
    }


def memory(executable: Any) -> dict[str, int] | None:
    """Bytes on one device, by what they are for; None where the compiler does not say."""
    try:
        stats = executable.get_compiled_memory_stats()
    except Exception:  # not every plugin has it
        return None
    return {name: int(getattr(stats, theirs)) for name, theirs in MEMORY.items()}


def cost_analysis(executable: Any) -> dict[str, float] | None:
    """XLA's totals for the program; None where the plugin does not count."""
    try:
        raw = executable.cost_analysis()
    except Exception:
        return None
    raw = raw[0] if isinstance(raw, list) and raw else raw
    names = ("flops", "transcendentals", "bytes accessed")
    return {name: float(raw[name]) for name in names if name in raw} if isinstance(raw, dict) else None


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    try:
        text, result = compile_program(request, (folder / "program.mlirbc").read_bytes())
        (folder / "program.hlo").write_text(text)
    except Exception as error:  # whatever it is, the parent makes a line of it
        result = {"error": f"{type(error).__name__}: {error}"}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
