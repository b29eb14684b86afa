"""The microscope job, through launch.py."""

import json
import os
import subprocess
import sys

import pytest

from llmjax.errors import UserError
from llmjax.microscope.objects import find_tools

OPTIMISED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
DUMPED = """
import jax, jax.numpy as jnp
jax.jit(lambda x: jnp.exp(x) * x + 1).lower(jax.ShapeDtypeStruct((24, 64), jnp.float32)).compile()
"""


def run(repo, command, **env):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "80", **env}
    return subprocess.run(command, cwd=repo, capture_output=True, text=True, env=env, check=False)


def launch(repo, *args, **env):
    return run(repo, [sys.executable, "launch.py", *args], **env)


@pytest.fixture
def llvm():
    try:
        return find_tools()
    except UserError as error:
        pytest.skip(str(error))


def test_the_tiny_job(repo, tmp_path, llvm):
    done = launch(repo, "--config=configs/microscope.py:tiny", "--config.op=softmax", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.replace(str(tmp_path), "").splitlines())) <= 80
    found = json.loads((tmp_path / "microscope.json").read_text())
    assert found["schema"] == "llmjax.microscope/1" and found["role"] == "softmax"
    assert found["measured_cycles"] > 0 and found["findings"]
    assert found["source"] and found["module_path"].startswith("GPT2/")
    assert found["op"] in (tmp_path / "op.hlo").read_text().splitlines()[-1]
    assert (tmp_path / "loop.s").is_file() == (found["kernel"] is not None)


def test_an_op_of_a_dump(repo, tmp_path, llvm):
    flags = f"--xla_dump_to={tmp_path / 'dump'} --xla_dump_hlo_as_text"
    settings = {**OPTIMISED, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    made = run(repo, [sys.executable, "-c", DUMPED], **settings)
    assert made.returncode == 0, made.stderr
    args = ("--config=configs/microscope.py", f"--config.dump={tmp_path / 'dump'}", f"--workdir={tmp_path / 'w'}")
    names = [p.name for p in (tmp_path / "dump").iterdir() if p.suffix == ".o" and "obj-file" in p.name]
    (op,) = [n.partition("obj-file.")[2].removeprefix("__compute_module_").removesuffix(".o") for n in names]
    op = op.removesuffix("_kernel_module")
    done = launch(repo, *args, f"--config.op={op}", "--config.cpu=znver3")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "w" / "microscope.json").read_text())
    hot = next(region for region in found["kernel"]["regions"] if region["hottest"])
    assert found["kernel"]["simulated_cpu"] == "znver3" and found["measured_cycles"] is None
    # Every element of the result is stored once, by as many iterations as their bytes make.
    assert hot["iterations"] * hot["bytes_stored"] == found["bytes_written"] == 24 * 64 * 4
    assert found["predicted_cycles"] >= hot["cycles"] > 0
    wrong = launch(repo, *args, "--config.op=nothing_of_this")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
    assert "is no op, role or module path" in wrong.stderr and "Roles:" in wrong.stderr


def test_mistakes_are_one_line(repo, tmp_path):
    for args, said, env in (
        (["--config.runs=0"], "runs=0", {}),
        (["--config.op="], "config.op=''", {}),
        (["--config.dump=nowhere"], "install llvm", {"PATH": ""}),
        (["--config.card=nowhere.json"], "cannot be read", {}),
    ):
        done = launch(repo, "--config=configs/microscope.py", *args, f"--workdir={tmp_path}", **env)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr and len(done.stderr.splitlines()) == 1
