"""Functions in a user's own file."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from llmjax.analyser import analyze
from llmjax.errors import UserError
from llmjax.inputs.function import Call, from_anywhere, is_function, jitted, read_function

SOURCE = """
import jax
import jax.numpy as jnp
from beside import SCALE

def step(x, w, act="tanh"):
    return getattr(jnp, act)(x @ w) * SCALE

def bad(x, w):
    y = x + 1
    return y @ w

def factory():
    spec = jax.ShapeDtypeStruct((8, 64), jnp.float32)
    return jax.jit(lambda x, k: x * k, static_argnums=1), (spec, 3)

def constant():
    return jnp.ones((4, 4)) @ jnp.ones((4, 4))

def broken():
    raise RuntimeError("no such thing")

LIMIT = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "beside.py").write_text("SCALE = 2.0\n")
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return str(path)


@pytest.mark.parametrize(
    ("word", "so"), [("a.py:f", True), ("d/a.py:f", True), ("a.py", False), ("a.hlo:f", False), ("a.py:", False)]
)
def test_what_names_a_function(word, so):
    assert is_function(word) is so


def test_a_function_with_described_arguments(file):
    call = jitted(read_function(f"{file}:step", "f32[8,64], f32[64,64], 'sin'"))
    report = analyze(call.function, *call.args)
    assert report.totals.matmul_flops == 2 * 8 * 64 * 64
    assert any("mine.py:7" in op.largest.key("source") for op in report.ops)


def test_a_factory_returns_its_function_and_arguments(file):
    call = jitted(read_function(f"{file}:factory"))
    assert call.args[1] == 3
    assert analyze(call.function, *call.args).totals.flops == 8 * 64


def test_static_arguments_are_left_out_of_a_measured_run(file):
    call = jitted(read_function(f"{file}:factory"))
    report = analyze(call.function, *call.args, measure=True)
    assert report.measured is not None and report.measured.wall.median > 0


@jax.tree_util.register_pytree_node_class
class Net:
    """As a module of Equinox: arrays, functions and other values are its leaves."""

    def __init__(self, *leaves):
        self.leaves = leaves

    def tree_flatten(self):
        return self.leaves, None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)

    def __call__(self, x):
        w, act, double = self.leaves
        return act(x @ w) * (2 if double else 1)


class Jitted:
    """As filter_jit of Equinox: jitted, and not by JAX."""

    def __init__(self, function):
        self.lower, self.function = None, function

    def __call__(self, *args):
        return self.function(*args)


@pytest.mark.parametrize("made", [lambda f: f, Jitted])
def test_what_is_no_array_in_an_argument_is_a_constant(made):
    def apply(net, x):
        return net(x)

    x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 64), (64, 32)))
    call = jitted(Call("a.py:apply", made(apply), (Net(w, jnp.tanh, True), x)))
    assert [leaf.shape for leaf in jax.tree.leaves(call.args)] == [(64, 32), (8, 64)]
    report = analyze(call.function, *call.args)
    assert report.totals.matmul_flops == 2 * 8 * 64 * 32 and report.totals.transcendentals == 8 * 32


def test_a_number_is_a_value_unless_another_library_jits():
    def shift(x, n):
        return x + n

    x = jax.ShapeDtypeStruct((8,), jnp.float32)
    assert jitted(Call("a.py:shift", shift, (x, 3))).args == (x, 3)
    assert jitted(Call("a.py:shift", Jitted(shift), (x, 3))).args == (x, None)


def test_lines_of_a_folder_that_is_called_as_the_package_are_the_users(file, tmp_path):
    folder = tmp_path / "llmjax"
    folder.mkdir()
    (folder / "mine.py").write_text("def f():\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"mine.py:2 in f: return 1 / 0"):
        read_function(f"{folder}/mine.py:f")


def test_a_word_for_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert from_anywhere("mine.py:f") == f"{tmp_path}/mine.py:f"
    assert from_anywhere("hf:bert") == "hf:bert" and from_anywhere("hf:.") == f"hf:{tmp_path}"


def test_a_function_of_nothing_is_its_own(file):
    call = read_function(f"{file}:constant")
    assert call.args == () and jnp.shape(call.function()) == (4, 4)


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("stp", "", "Did you mean 'step'?"),
        ("step", "", "needs x, w: --args"),
        ("LIMIT", "", "is int, not a function"),
        ("broken", "", 'in broken: raise RuntimeError("no such thing")\n  RuntimeError: no such thing'),
    ],
)
def test_what_does_not_fit_is_told(file, name, words, says):
    with pytest.raises(UserError) as caught:
        read_function(f"{file}:{name}", words)
    assert says in str(caught.value)


def test_a_failure_is_told_in_the_users_own_lines(file):
    call = jitted(read_function(f"{file}:bad", "f32[8,64], f32[32,8]"))
    with pytest.raises(UserError) as caught:
        analyze(call.function, *call.args)
    first, *lines, last = str(caught.value).splitlines()
    assert first == f"{file}:bad fails:" and lines == ["  mine.py:11 in bad: return y @ w"]
    assert last.startswith("  TypeError: dot_general requires contracting dimensions")


@pytest.mark.parametrize(
    ("text", "says"),
    [("x = (", "broken.py:1: x = ("), ("import nothing_like_it", "No module named 'nothing_like_it'"),
     ("raise SystemExit(3)", "SystemExit: 3")],
)  # fmt: skip
def test_a_file_that_cannot_be_loaded(tmp_path, text, says):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(UserError) as caught:
        read_function(f"{tmp_path}/broken.py:f")
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "steps.py").write_text("")
    with pytest.raises(UserError, match=r"does not exist. Did you mean 'steps.py'"):
        read_function(f"{tmp_path}/step.py:f")
