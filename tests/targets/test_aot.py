"""Compiling for a chip by name: what reaches the compiler, the cache, and what is said when it fails.

The CPU's compiler is always here; those of TPU and GPU are asked where their plugins are installed.
"""

import importlib.util
import json
import re
import subprocess
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

import llmjax
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.targets import aot
from llmjax.targets.aot import compile_for, compile_lowered, lower_for
from llmjax.targets.local import MemoryUse, compile_here
from llmjax.targets.names import parse_target
from tests import codegen


def installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


needs_tpu = pytest.mark.skipif(not installed("libtpu"), reason="libtpu is not installed")
needs_gpu = pytest.mark.skipif(not installed("jax_plugins.xla_cuda12"), reason="the CUDA plugin is not installed")
CHIPS = [
    "cpu",
    pytest.param("tpu:v5e:2x2", marks=needs_tpu),
    pytest.param("tpu:tpu7x", marks=needs_tpu),
    pytest.param("gpu:h100", marks=needs_gpu),
    pytest.param("gpu:t4", marks=needs_gpu),
]
W = jax.ShapeDtypeStruct((64, 64), jnp.float32)
RESULT = {"text": "HloModule m", "memory": None, "cost_analysis": None, "compile_seconds": 1.0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "llmjax" / "aot"


@partial(jax.jit, donate_argnums=0)
def step(state, w):
    with jax.named_scope("GPT2/h_3/attn/c_attn"):
        return jnp.tanh(state @ w)


@pytest.mark.parametrize("target", CHIPS)
def test_names_lines_and_donation_survive(target):
    program = compile_for(target, step, W, W)
    module = parse(program.text)
    assert program.backend == target.partition(":")[0]
    assert [(a.output_index, a.parameter) for a in module.input_output_alias] == [((), 0)]
    report = llmjax.analyze(step, W, W, target=target)
    (path,) = {row.key for row in report.by("module_path") if row.cost.matmul_flops}
    assert path == "GPT2/h_3/attn/c_attn"
    (source,) = {str(row.key) for row in report.by("source") if row.cost.matmul_flops}
    file, _, line = source.rpartition(":")
    assert "state @ w" in Path(file).read_text().splitlines()[int(line) - 1]
    assert report.totals.matmul_flops == 2 * 64**3
    assert report.target == program.target and report.target.startswith(target)
    assert (report.device is not None) == (target != "cpu")
    assert program.compile_seconds > 0
    memory = program.memory
    assert memory.aliased >= 64 * 64 * 4 and memory.arguments >= 2 * 64 * 64 * 4
    assert memory.needed == memory.arguments + memory.outputs - memory.aliased + memory.temporaries + memory.code


def test_the_cpu_text_is_that_of_a_compilation_here(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", codegen.FLAGS)  # as it is here

    def bare(text):  # without the tables of source lines, which name the caller, and the header
        body = text[text.index("\n\n%") if "\n\n%" in text else text.index("ENTRY") :]
        body = re.sub(r" ?stack_frame_id=\d+", "", body)
        # The keys of a proto's JSON come in any order.
        return re.sub(r"backend_config=(\{.*\})", lambda m: json.dumps(json.loads(m[1]), sort_keys=True), body)

    assert bare(compile_for("cpu", step, W, W).text) == bare(compile_here(step, W, W).text)


def test_the_cache_is_by_content(cache, monkeypatch):
    lowered = lower_for("cpu", step, W, W)
    first = compile_lowered(parse_target("cpu"), lowered)
    (file,) = cache.iterdir()
    monkeypatch.setattr(aot, "_child", lambda *_: pytest.fail("compiled again"))
    assert compile_lowered(parse_target("cpu"), lowered) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent))
    asked = []
    monkeypatch.setattr(aot, "_child", lambda *request: asked.append(request) or RESULT)
    other = jax.ShapeDtypeStruct((32, 64), jnp.float32)
    compile_lowered(parse_target("cpu"), lower_for("cpu", step, other, W))
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    compile_lowered(parse_target("cpu"), lowered)
    file.write_bytes(b"damaged")
    monkeypatch.delenv("XLA_FLAGS")
    compile_lowered(parse_target("cpu"), lowered)
    assert len(asked) == 3


@pytest.mark.parametrize(("target", "extra"), [("tpu:v5e:2x2", "aot-tpu"), ("gpu:h100", "aot-gpu")])
def test_a_missing_compiler_is_one_line(target, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"not installed: pip install 'llmjax\[{extra}\]'"):
        compile_for(target, step, W, W)


@pytest.mark.parametrize("name", ["gpu", "tpu"])
def test_an_attached_chip_that_is_not_there(name):
    with pytest.raises(UserError, match=f"no {name.upper()} is attached"):
        compile_for(name, step, W, W)


def test_what_is_lowered_already_is_refused():
    with pytest.raises(UserError, match="lowered already"):
        compile_for("cpu", step.lower(W, W))


OOM = (
    "XlaRuntimeError: RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm."
    " Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.\n\nTotal hbm usage >= 20.50G:"
)
OOM_TOTAL = (
    "JaxRuntimeError: RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required"
    " for HLO temporaries (149.15G) exceeds available HBM (15.75G). HLO module: jit_f."
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OOM, "does not fit: it needs 20.50G of 15.75G hbm, 4.75G too much"),
        (OOM_TOTAL, "does not fit: it needs 149.15G for HLO temporaries of 15.75G, 133.40G too much"),
        ("ValueError: no\nsecond line", "the compiler refuses: ValueError: no"),
        ("", "unknown error"),
    ],
)
def test_what_a_compiler_complains_of_is_one_line(error, said, monkeypatch):
    monkeypatch.setattr(aot, "_child", lambda *_: {"error": error})
    with pytest.raises(UserError) as found:
        compile_for("cpu", step, W, W)
    assert said in str(found.value) and "\n" not in str(found.value)


def test_the_child_has_a_clean_environment(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/nowhere")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setenv("XLA_FLAGS", "--a")
    environment = aot._environment()
    assert environment["JAX_PLATFORMS"] == "cpu" and environment["XLA_FLAGS"] == "--a"
    assert "JAX_COMPILATION_CACHE_DIR" not in environment


def test_a_compiler_that_dies_says_how(monkeypatch):
    def run(command, **kwargs):
        return subprocess.CompletedProcess(command, -6, b"", b"noise\nF0101 12:00 a.cc:3] Check failed: x\nmore")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match=r"the compiler died \(SIGABRT\). F0101 12:00 a.cc:3\] Check failed: x"):
        compile_for("cpu", step, W, W)


def test_shardings_over_an_abstract_mesh_reach_the_compiler(monkeypatch):
    mesh = AbstractMesh((4,), ("data",))
    rows = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data", None)))
    lowered = lower_for("tpu", jax.jit(lambda x: (x * x).sum()), rows)
    assert lowered.options["num_devices"] == 4
    assert lowered.options["free_inputs"] == [False] and lowered.options["free_outputs"] == [True]
    assert json.dumps(lowered.options)


@needs_tpu
def test_one_program_over_four_chips():
    mesh = AbstractMesh((4,), ("data",))
    rows = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data", None)))
    program = compile_for("tpu:v5e:2x2", jax.jit(lambda x: x.sum()), rows)
    assert parse(program.text).num_partitions == 4 and "all-reduce" in program.text
    with pytest.raises(UserError, match="is for 4 devices, and there are 1"):
        compile_for("tpu:v5e:1x1", jax.jit(lambda x: x.sum()), rows)


@needs_tpu
def test_a_program_that_does_not_fit_says_by_how_much():
    huge = jax.ShapeDtypeStruct((100_000, 100_000), jnp.float32)
    with pytest.raises(UserError, match=r"does not fit: it needs .* too much"):
        compile_for("tpu:v5e:2x2", jax.jit(lambda x: jnp.sort(x)), huge)


@needs_tpu
def test_one_chip_of_a_pod():
    program = compile_for("tpu:v5e:16x16", step, W, W)
    assert parse(program.text).num_partitions == 1


def test_memory_that_is_needed():
    assert MemoryUse(10, 5, 4, 3, 2).needed == 16
