"""Programs kept on disk: read back they run as before, and nothing that decides them is left out of their name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.infer import kept as module
from llmjax.infer.kept import kept


@pytest.fixture
def folder(tmp_path):
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


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04]\x94."])
def test_a_damaged_file_is_built_again(folder, content):
    kept("one", Builds())
    (file,) = folder.glob("llmjax-*")
    file.write_bytes(content)
    build = Builds()
    programs = kept("one", build)
    assert len(programs) == 1 and run(programs[0]) == [1.0, 3.0, 5.0]


def test_without_a_cache_folder_nothing_is_kept(tmp_path):
    assert not jax.config.jax_compilation_cache_dir
    build = Builds()
    kept("one", build)
    kept("one", build)
    assert build.count == 2
