"""The wheel, built from a copy of the tree: light, with the jobs in it, and at work where JAX is not installed."""

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

PARTS = (
    "launch.py",
    "build_backend",
    "configs",
    "experiments",
    "llmjax",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
HEAVY = ("jax", "jaxlib", "flax", "numpy", "optax", "absl", "transformers", "datasets", "orbax", "plotly")


@pytest.fixture(scope="module")
def wheel(repo, tmp_path_factory):
    """The wheel's file; the tests are skipped where pip cannot have setuptools."""
    tree, made = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("made")
    for part in PARTS:
        copy = shutil.copytree if (repo / part).is_dir() else shutil.copy
        copy(repo / part, tree / part)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(made), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("pip cannot install setuptools here")
    assert done.returncode == 0, done.stderr
    (file,) = made.glob("*.whl")
    return file


def test_the_wheel_is_light_and_holds_the_jobs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (email.message_from_bytes(archive.read(n)) for n in names if n.endswith("/METADATA"))
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.partition("<")[0].partition(">")[0] for line in needed) == ["jinja2", "rich", "shtab"]
    homes = {name.partition("llmjax/home/")[2] for name in names}
    assert homes >= {"configs/quickstart.py", "configs/data/tiny_reviews.tsv", "experiments/cost.py", "launch.py"}
    assert not any(name.startswith(("configs/", "experiments/", "tests/")) for name in names)


def test_the_installed_wheel_counts_hlo_without_jax(repo, wheel, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--quiet", "--target"]
    command += [str(tmp_path), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
sys.modules.update(dict.fromkeys({HEAVY!r}))
import llmjax
assert llmjax.__file__.startswith({str(tmp_path)!r}), llmjax.__file__
report = llmjax.analyze_hlo({str(repo / "tests/testdata/hlo/gpu_block_bf16.hlo")!r}, card="gpu:h100")
report.to_json(), repr(report), report.verdict.what_ifs
print(report.totals.matmul_flops)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_a_fresh_environment_runs_the_command(repo, wheel, tmp_path):
    """As a stranger would: a venv outside of the clone, the wheel with its pages, and three commands."""
    bare = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(bare, check=True, capture_output=True)
    python = tmp_path / "venv" / "bin" / "python"
    # Without compiling plotly's many files, of which few are run.
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    command += [f"{wheel}[report]"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr:
        pytest.skip("pip cannot install rich, jinja2, shtab and plotly here")
    assert done.returncode == 0, done.stderr
    hlo = str(repo / "tests/testdata/hlo/tpu_block_bf16.hlo")

    def llmjax(*words):
        command = [str(python.parent / "llmjax"), *words]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout, ran.stderr

    status, told, _ = llmjax("cost", hlo, "--target", "tpu:v5e", "--html", "cost.html")
    assert status == 0 and "predicted:" in told and (tmp_path / "cost.html").stat().st_size > 1_000_000
    status, told, _ = llmjax("diff", hlo, hlo, "--fail-above", "2%", "--json")
    assert status == 0 and json.loads(told)
    status, _, said = llmjax("cost", "step.py:step")
    assert status == 2 and said.startswith("error: ")
    status, _, said = llmjax("run", "configs/cost.py", "--config.model=gpt2")
    assert status == 2 and "pip install 'llmjax[jax]'" in said and "llmjax[models]" in said
