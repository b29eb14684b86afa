"""The front door: functions in every state of compilation, and HLO without JAX."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import llmjax
from llmjax.errors import UserError
from llmjax.hlo import HloParseError

HLO = Path(__file__).parent / "testdata" / "hlo"
X = jax.ShapeDtypeStruct((8, 16), jnp.float32)
FLOPS = 2 * 8 * 8 * 16


def gram(x):
    return x @ x.T


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(lambda: (gram, X), id="function"),
        pytest.param(lambda: (jax.jit(gram), X), id="jitted"),
        pytest.param(lambda: (jax.jit(gram), jnp.ones((8, 16))), id="array"),
        pytest.param(lambda: (jax.jit(gram).lower(X),), id="lowered"),
        pytest.param(lambda: (jax.jit(gram).lower(X).compile(),), id="compiled"),
    ],
)
def test_a_program_in_any_state(program):
    report = llmjax.analyze(*program())
    assert report.totals.matmul_flops == FLOPS
    assert report.backend == "cpu"
    assert report.compiler is not None and report.compiler["flops"] == FLOPS
    assert report.text.startswith("HloModule jit_gram")
    (source,) = [row for row in report.by("source") if row.cost.matmul_flops]
    file, _, line = str(source.key).rpartition(":")
    assert Path(file) == Path(__file__)
    assert "x @ x.T" in Path(__file__).read_text().splitlines()[int(line) - 1]


def test_keyword_arguments_and_roles():
    def scaled(x, *, scale):
        with jax.named_scope("weird"):
            return (x @ x.T) * scale

    report = llmjax.analyze(scaled, X, scale=jax.ShapeDtypeStruct((), jnp.float32), roles=[("weird/", "strange")])
    rows = {row.key: row.cost.flops for row in report.by("role")}
    assert rows["strange"] == FLOPS + 64


def test_trip_counts_of_a_loop_that_only_the_input_knows():
    def loop(x, n):
        return jax.lax.while_loop(lambda c: c[1] < n, lambda c: (c[0] @ c[0], c[1] + 1), (x, 0))

    args = (jax.ShapeDtypeStruct((8, 8), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))
    report = llmjax.analyze(loop, *args)
    (name,) = report.cost.unknown_trip_counts
    assert report.cost.lower_bound and report.totals.matmul_flops == 2 * 8**3
    assert llmjax.analyze(loop, *args, trip_counts={name: 9}).totals.matmul_flops == 9 * 2 * 8**3


def test_what_cannot_be_analysed_is_refused():
    with pytest.raises(UserError, match="takes no more arguments"):
        llmjax.analyze(jax.jit(gram).lower(X), X)
    with pytest.raises(UserError, match="expected a function"):
        llmjax.analyze(3)


def test_the_source_lines_are_those_of_this_text(tmp_path, monkeypatch):
    """Two functions that differ in their line only: the second must not get the first one's program from a cache."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        lines = []
        for blank in ("", "\n\n\n"):
            scope: dict = {}
            exec(compile(f"{blank}def f(x):\n    return x @ x\n", "f.py", "exec"), scope)
            report = llmjax.analyze(scope["f"], jax.ShapeDtypeStruct((4, 4), jnp.float32))
            lines.append([str(row.key) for row in report.by("source") if row.cost.matmul_flops])
            jax.clear_caches()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    assert lines == [["f.py:2"], ["f.py:5"]]


def test_hlo_by_text_path_and_string_path():
    path = HLO / "cpu_0.12.0.1_scan_f32.hlo"
    totals = {str(llmjax.analyze_hlo(source).totals) for source in (path, str(path), path.read_text())}
    assert len(totals) == 1


def test_hlo_without_jax(repo):
    """Import of JAX, NumPy and Flax is blocked: what the analyser imports is in the standard library, but for rich."""
    script = f"""
import sys
sys.path.insert(0, {str(repo)!r})
for name in ("jax", "jaxlib", "flax", "numpy", "optax", "absl"):
    sys.modules[name] = None
import llmjax
report = llmjax.analyze_hlo({str(HLO / "gpu_block_bf16.hlo")!r})
report.to_json(), report.to_csv(), repr(report), report._repr_html_()
print(report.totals.matmul_flops)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_files_that_are_not_hlo(tmp_path):
    def said(name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as error:
            llmjax.analyze_hlo(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
        return error

    assert "is no HloModuleProto" in str(said("a.pb", b"\x0a\x03\x00\xff").value)
    assert "is empty" in str(said("b.txt", b" \n").value)
    broken = said("c.txt", b"HloModule m\nENTRY e {\n  ROOT x = f32[2 parameter(0)\n}\n")
    assert isinstance(broken.value, HloParseError)
    assert (broken.value.line, "line 3, column" in str(broken.value)) == (3, True)
    with pytest.raises(UserError, match="does not exist"):
        llmjax.analyze_hlo(tmp_path / "nowhere.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no HLO"):
        llmjax.analyze_hlo(tmp_path / "empty")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_lowered_program_is_measured_with_arguments_made_up(compiled):
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    lowered = jax.jit(lambda a, *, b: a @ b + 1).lower(x, b=x)
    report = llmjax.analyze(lowered.compile() if compiled else lowered, measure=True)
    assert report.measured is not None and report.measured.wall.median > 0
