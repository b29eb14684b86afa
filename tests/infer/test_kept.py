"""Programs kept on disk: read back they run as before, and nothing that decides them is left out of their name."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.infer import kept as module
from llmjax.infer.kept import kept
from llmjax.kernels.formats import Rows


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


class Builds:
    """Compiles x * factor + b and counts how often."""

    def __init__(self, factor=2.0):
        self.factor, self.count = factor, 0

    def __call__(self):
        self.count += 1
        shape = jax.ShapeDtypeStruct((3,), "float32")
        program = jax.jit(lambda tree: {"y": tree["x"] * self.factor + tree["b"]})
        return (program.lower({"x": shape, "b": shape}).compile(),)


def run(program):
    x = np.arange(3, dtype=np.float32)
    return np.asarray(program({"x": x, "b": jnp.ones(3)})["y"]).tolist()


def test_a_second_reader_gets_the_program_without_building_it(folder):
    build = Builds()
    assert [run(kept("one", build)[0]) for _ in range(3)] == [[1.0, 3.0, 5.0]] * 3
    assert build.count == 1
    assert jax.config.jax_enable_compilation_cache


def test_what_xla_read_from_its_own_cache_is_not_kept(folder):
    """XLA on CPU writes only the shell of a program that it has read: it would fail when it runs."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        Builds()()
        kept("one", Builds())
        assert run(kept("one", Builds())[0]) == [1.0, 3.0, 5.0]
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def test_another_identity_or_setting_is_another_program(folder):
    one, other = Builds(2.0), Builds(3.0)
    assert run(kept("one", one)[0]) == [1.0, 3.0, 5.0]
    assert run(kept("other", other)[0]) == [1.0, 4.0, 7.0]
    before = module._surroundings()
    module._surroundings.cache_clear()
    jax.config.update("jax_default_matmul_precision", "float32")
    try:
        assert module._surroundings() != before
    finally:
        jax.config.update("jax_default_matmul_precision", None)
        module._surroundings.cache_clear()


def kept_file(folder):
    (file,) = (folder / "llmjax").iterdir()
    return file


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no pickle",
        lambda content: content[:-1],
        lambda content: flipped(content, 5),
        lambda content: flipped(content, len(content) // 2),
    ],
)
def test_a_damaged_file_is_built_again(folder, damage):
    kept("one", Builds())
    file = kept_file(folder)
    file.write_bytes(damage(file.read_bytes()))
    build = Builds()
    assert run(kept("one", build)[0]) == [1.0, 3.0, 5.0] and build.count == 1
    assert run(kept("one", build)[0]) == [1.0, 3.0, 5.0] and build.count == 1


class Planted:
    """Its pickle leaves a mark where it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_planted_pickle_is_not_run(folder):
    kept("one", Builds())
    mark, file = folder / "ran", kept_file(folder)
    digest, planted = file.read_bytes()[:32], pickle.dumps(Planted(mark))
    for content in (planted, digest + planted, module._sealed(file.name, planted)):  # the last by a holder of the key
        file.write_bytes(content)
        assert run(kept("one", Builds())[0]) == [1.0, 3.0, 5.0] and not mark.exists()


class Pair(NamedTuple):
    rows: Rows
    none: None
    many: tuple


def test_trees_come_back_and_donated_arguments_are_spent(folder):
    def swap(pair, added, unused):
        return Pair(Rows(pair.rows.values_ED + added, pair.rows.scale_E), None, (pair.many[0], [pair.many[0] * 2]))

    def build():
        shape = jax.ShapeDtypeStruct((4,), "float32")
        pair, scalar = Pair(Rows(shape, shape), None, (shape,)), jax.ShapeDtypeStruct((), "int32")
        return (jax.jit(swap, donate_argnums=0, keep_unused=True).lower(pair, scalar, shape).compile(),)

    results = []
    for _ in range(2):
        (program,) = kept("one", build, (Pair, Rows))
        pair = Pair(Rows(jnp.arange(4.0), jnp.ones(4)), None, (jnp.full(4, 3.0),))
        results.append(program(pair, np.int32(5), np.zeros(4, np.float32)))
        assert pair.rows.values_ED.is_deleted()
    assert isinstance(program, module.Program)
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    assert all(map(np.array_equal, *map(jax.tree.leaves, results)))


def test_what_cannot_be_described_is_not_kept(folder):
    def left_out():
        shape = jax.ShapeDtypeStruct((4,), "float32")
        return (jax.jit(lambda x, unused: x + 1).lower(shape, shape).compile(),)

    def unknown():
        return (jax.jit(lambda x: Rows(x)).lower(jax.ShapeDtypeStruct((4,), "float32")).compile(),)

    for build in (left_out, unknown):
        kept("one", build)
        assert not list((folder / "llmjax").iterdir())


def test_a_file_of_another_key_or_name_is_not_read(folder):
    kept("one", Builds())
    one = kept_file(folder)
    content = one.read_bytes()
    one.unlink()
    kept("two", Builds(3.0))
    two = kept_file(folder)
    two.write_bytes(content)  # sealed, but under another name
    assert run(kept("two", Builds(3.0))[0]) == [1.0, 4.0, 7.0]
    (folder / "cache" / "llmjax" / "key").write_bytes(bytes(32))
    build = Builds(3.0)
    kept("two", build)
    assert build.count == 1


@pytest.mark.parametrize("place", ["llmjax", "cache/llmjax", "cache/llmjax/key", "file"])
def test_what_others_can_write_is_neither_read_nor_run(folder, place):
    kept("one", Builds())
    path = kept_file(folder) if place == "file" else folder / place
    path.chmod(path.stat().st_mode | 0o022)
    build = Builds()
    assert run(kept("one", build)[0]) == [1.0, 3.0, 5.0] and build.count == 1


def test_only_this_user_can_read_what_is_kept(folder):
    kept("one", Builds())
    for path in (folder / "llmjax", kept_file(folder), folder / "cache/llmjax", folder / "cache/llmjax/key"):
        assert path.stat().st_mode & 0o077 == 0


TWO_DEVICES = """
import jax
import jax.numpy as jnp
jax.config.update("jax_default_device", jax.devices()[1])
from tests.infer.test_kept import Builds, run
from llmjax.infer.kept import kept
build = Builds()
program, = kept("one", build)
assert run(program) == [1.0, 3.0, 5.0]
print(build.count, [one.id for one in program({"x": jnp.ones(3), "b": jnp.ones(3)})["y"].devices()])
"""


def test_a_program_comes_back_on_the_device_that_it_was_compiled_for(folder, repo):
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", TWO_DEVICES]
    said = [subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True) for _ in range(2)]
    assert [one.stdout.strip() for one in said] == ["1 [1]", "0 [1]"], said[-1].stderr


def test_every_source_file_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    found = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "room" / "file.py").write_text(text)
        module._surroundings.cache_clear()
        found.add(module._surroundings())
    module._surroundings.cache_clear()
    assert len(found) == 2


def test_without_a_cache_folder_nothing_is_kept(folder):
    jax.config.update("jax_compilation_cache_dir", None)
    build = Builds()
    kept("one", build)
    kept("one", build)
    assert build.count == 2
