"""llmjax, its peers and the machine's own limits, timed in turn: benchmark.json, a table and a picture."""

import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
from rich.console import Console

from experiments._mesh import check_rows, described, mesh_here
from experiments._settings import settled
from experiments.peers.case import MATRIX, Case
from experiments.peers.report import picture, table
from experiments.peers.runner import ENTRIES, PEERS, Contestant, Failed, Workers, contestants, first_token, versions
from llmjax.data.tokenizer import load_tokenizer
from llmjax.errors import UserError, did_you_mean
from llmjax.files import atomic_write, cache_folder
from llmjax.memory import available, require, tree_bytes
from llmjax.models.config import ModelConfig
from llmjax.models.families import SIZES, from_size
from llmjax.models.folders import read_config, resolve_folder
from llmjax.models.params import init_params, param_shapes
from llmjax.models.weights import save_pretrained
from llmjax.parallel.mesh import AXES, on_mesh
from llmjax.train.speed import train_flops

KINDS = ("decode", "prefill", "classify", "train", "start")
BYTES = {"float32": 4, "16-bit": 2, "8-bit": 1, "4-bit": 20 / 32}  # of a weight; GGUF's Q4_1 has 20 a group of 32
MATMULS = {"float32": "matmul-float32", "16-bit": "matmul-bfloat16", "8-bit": "matmul-int8", "4-bit": "matmul-int8"}


def run(config: Any, workdir: str) -> None:
    """Times the configured cases and writes `workdir`/benchmark.json and benchmark.svg."""
    config = settled(config)
    cases = [parse_case(name, config) for name in config.cases]
    for name in config.peers:
        if name not in PEERS:
            raise UserError(f"peers: {name!r} is none of {', '.join(PEERS)}.{did_you_mean(name, PEERS)}")
    mesh = mesh_here(config.mesh)
    with on_mesh(mesh):
        for case in cases:
            check_rows(f"cases: {case.name}: rows", case.batch)
    python = config.peer_python or sys.executable
    wanted = {entry.name: entry.package for entry in ENTRIES if entry.name in ("llmjax", *config.peers)}
    found = versions(python, (*wanted.values(), "transformers", "numpy"))
    missing = [name for name, package in wanted.items() if name != "llmjax" and package not in found]
    if missing:
        print(f"not installed, left out: {', '.join(missing)} (pip install -e '.[peers]')", file=sys.stderr)
    shape, folder = checkpoint(config.size)
    threads = config.threads or len(os.sched_getaffinity(0))
    record: dict[str, Any] = {"machine": machine(threads), "versions": found, "missing": missing, "results": []}
    if mesh is not None:
        record["mesh"] = dict(mesh.shape)
    present = set(wanted) - set(missing)
    target = Path(workdir)
    target.mkdir(parents=True, exist_ok=True)
    sizes = {axis: 1 if mesh is None else mesh.shape[axis] for axis in AXES}
    with Workers(folder, target / "workers.log", threads, python, sizes) as workers:
        for at, case in enumerate(cases):
            later = {who for other in cases[at:] for who in contestants(other, present)}
            workers.keep((*later, *(Contestant("machine", name) for name in ("read", *MATMULS.values()))))
            print(f"{case.name} ({at + 1} of {len(cases)})", file=sys.stderr, flush=True)
            record["results"].append(measure(case, shape, workers, present, config.repeats))
            workers.keep(tuple(who for other in cases[at + 1 :] for who in contestants(other, present)))
            atomic_write(target / "benchmark.json", json.dumps(record, indent=2) + "\n")
    record["machine"]["load_after"] = os.getloadavg()
    atomic_write(target / "benchmark.json", json.dumps(record, indent=2) + "\n")
    title = f"{config.size}, {record['machine']['processor']}, {threads} threads, jaxlib {jaxlib.version.__version__}"
    title += "" if mesh is None else f", llmjax on {described(mesh)}"
    atomic_write(target / "benchmark.svg", picture(record["results"], title))
    Console().print(table(record["results"]))
    for result in record["results"]:
        for name, reason in result["failed"].items():
            print(f"{result['case']}: {name} failed: {reason}", file=sys.stderr)
    print(f"written to {target / 'benchmark.json'} and {target / 'benchmark.svg'}")


def parse_case(name: str, config: Any) -> Case:
    """Turns "decode-8-16-bit" into a case; anything else raises `UserError`."""
    kind, _, rest = name.partition("-")
    rows, _, width = rest.partition("-")
    if kind not in KINDS or not rows.isdigit() or int(rows) < 1 or width not in BYTES:
        raise UserError(
            f"cases: {name!r} is not KIND-ROWS-WIDTH with KIND of {', '.join(KINDS)} and WIDTH of {', '.join(BYTES)},"
            f" e.g. decode-8-float32.{did_you_mean(name, [f'{kind}-8-{width}' for kind in KINDS for width in BYTES])}"
        )
    tokens = {"decode": config.new_tokens, "prefill": config.prompt_tokens, "start": 1}.get(kind, config.text_tokens)
    return Case(kind, int(rows), tokens, width)


def checkpoint(size: str) -> tuple[ModelConfig, Path]:
    """Returns the shape and what every contestant reads: the trained model that `size` names, or else a folder with
    random weights of that size, kept between runs.
    """
    if size not in SIZES:
        folder = resolve_folder(size)
        return read_config(folder), folder
    shape = from_size(size)
    folder = cache_folder() / "benchmark" / size
    if not (folder / "model.safetensors").exists():
        require({"parameters": tree_bytes(param_shapes(shape, "lm"))}, "take a smaller size", available())
        params = init_params(shape, "lm", jax.random.key(0))
        save_pretrained(folder, shape, params, "lm", load_tokenizer("gpt2"))
    return shape, folder


def machine(threads: int) -> dict[str, Any]:
    """Returns what the figures depend on besides the code."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "device": jax.devices()[0].device_kind,
        "threads": threads,
        "python": platform.python_version(),
        "jaxlib": jaxlib.version.__version__,
        "load_before": os.getloadavg(),
    }


def measure(case: Case, shape: ModelConfig, workers: Workers, present: set[str], repeats: int) -> dict[str, Any]:
    """Times a case: every contestant once, in turn, as often as asked, with the machine's own limit in each turn."""
    field = [*contestants(case, present)]
    seconds: dict[str, list[float]] = {who.name: [] for who in field}
    details: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    limits: list[float] = []
    for turn in range(repeats):
        # Everyone goes first once: what is left in the caches favours nobody.
        for who in [*field[turn % len(field) :], *field[: turn % len(field)]] if field else ():
            if who.name in failed:
                continue
            try:
                answer = first_token(who, workers) if case.kind == "start" else workers.run(who, case)
            except Failed as error:
                failed[who.name] = str(error)
                continue
            seconds[who.name].append(answer["seconds"])
            details.setdefault(who.name, {"format": who.format, "load": answer["load"], "once": answer["once"]})
        limits += [limit(case, shape, workers)] if case.kind != "start" else []
    rates = {name: case.total / statistics.median(times) for name, times in seconds.items() if times}
    roof = statistics.median(limits) if limits else None
    peers = {name: rate for name, rate in rates.items() if name != "llmjax"}
    best = max(peers, key=lambda name: peers[name], default=None)
    ours = rates.get("llmjax")
    return {
        "case": case.name,
        "tokens": case.total,
        "rates": rates,
        "roof": roof,
        "near_roof": ours / roof if ours and roof else None,
        "best_peer": best,
        "against_peer": ours / peers[best] if ours and best else None,
        "seconds": seconds,
        "roofs": limits,
        "details": details,
        "failed": failed,
    }


def limit(case: Case, shape: ModelConfig, workers: Workers) -> float:
    """Returns the tokens/s that the machine allows, measured now: by reading the weights once a step, or by matmuls."""
    if case.kind == "decode":
        size = weight_bytes(shape, case.width)
        sweep = workers.run(Contestant("machine", "read"), case._replace(tokens=size))
        return case.batch / sweep["seconds"]
    answer = workers.run(Contestant("machine", MATMULS[case.width]), case)
    flops_per_second = 2.0 * MATRIX**3 / answer["seconds"]
    return case.total * flops_per_second / case_flops(case, shape)


def weight_bytes(shape: ModelConfig, width: str) -> int:
    """Bytes of the matrices that a decode step reads."""
    kernels = jax.tree_util.tree_leaves_with_path(param_shapes(shape, "none"))
    weights = sum(leaf.size for at, leaf in kernels if at[-1].key == "kernel")
    return round((weights + shape.vocab_size * shape.width) * BYTES[width])


def case_flops(case: Case, shape: ModelConfig) -> float:
    """Matmul FLOPs that a prefill, classify or train case needs, at 2 a multiply-add."""
    if case.kind == "prefill":
        trunk = train_flops(shape, "classifier", case.batch, case.total, case.tokens) / 3
        return trunk + 2.0 * case.batch * shape.width * shape.vocab_size
    flops = train_flops(shape, "classifier", case.batch, case.total, case.tokens)
    return flops if case.kind == "train" else flops / 3
