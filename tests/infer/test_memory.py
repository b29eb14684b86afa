"""Memory needed, from shapes, and the line that says so."""

import jax
import numpy as np
import pytest

from llmjax.errors import UserError
from llmjax.infer import memory
from llmjax.infer.loop import Shape, compile_programs
from llmjax.infer.memory import check_forward, check_memory, needs
from llmjax.infer.sampling import Sampling
from llmjax.kernels.formats import BLOCK, FORMATS, activation_dtype
from llmjax.memory import available
from llmjax.models.cache import empty_cache
from llmjax.models.families import from_size
from llmjax.models.params import prepare
from llmjax.parallel.mesh import abstract_mesh, on_mesh
from tests.infer.models import random_model

SHAPE = Shape(batch=3, length=16, slots=64, new=16)


def size(tree):
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("format", FORMATS)
def test_needs_are_the_bytes_of_the_arrays(format):
    config, params = random_model()
    need = needs(config, format, SHAPE)
    assert need.weights == size(prepare(params, config, format))
    assert need.loading == size(params)
    cache = empty_cache(config, 3, 64, activation_dtype(format))
    assert need.cache == size((cache.k_NSK, cache.v_NSK))
    assert need.activations > 3 * config.vocab_size * 4


def test_the_released_sizes_need_what_is_known():
    weights = needs(from_size("gpt2"), "float32", SHAPE).weights
    padding = -50_257 % BLOCK  # rows that make the vocabulary a whole number of blocks
    assert weights == 4 * (124_439_808 + padding * 768)
    assert needs(from_size("gpt2"), "int8", SHAPE).weights < weights / 3.8


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (1, ("weights in float32 5.80 GiB", "their other form while loading 5.80 GiB")),
        (64, ("weights in float32 5.80 GiB", "cache of 64 rows of 1024 tokens 37.50 GiB", "activations")),
    ],
)
def test_too_little_memory_is_one_line_with_every_part_of_the_peak(rows, parts):
    config = from_size("gpt2-xl")
    with pytest.raises(UserError) as error:
        check_memory(config, "float32", Shape(rows, 512, 1024, 512), free=2**30)
    line = str(error.value)
    assert "\n" not in line and "1.00 GiB free" in line
    for part in parts:
        assert part in line


def test_on_a_mesh_a_device_needs_its_part_and_a_mesh_that_would_do_is_named():
    config, shape = from_size("gpt2"), Shape(8, 512, 1024, 512)
    with pytest.raises(UserError, match=r"weights in float32 47\d\.\d MiB"):
        check_memory(config, "float32", shape, free=2**29)
    with on_mesh(abstract_mesh((8, 1, 1))), pytest.raises(UserError) as error:
        check_memory(config, "float32", shape, free=2**29)
    said = str(error.value)
    assert "a device's part of 8" in said and "\n" not in said
    assert said.endswith("; or --config.mesh.data=4 --config.mesh.fsdp=2 --config.mesh.tensor=1.")
    with on_mesh(abstract_mesh((4, 2, 1))):
        check_memory(config, "float32", shape, free=2**29)


def test_enough_or_unknown_memory_passes():
    config, _ = random_model()
    assert check_memory(config, "int8", SHAPE, free=None) == check_memory(config, "int8", SHAPE, free=2**40)


def test_this_machine_has_memory():
    free = available()
    assert free is None or 2**20 < free < 2**50


def test_a_batch_too_large_is_refused_before_its_program_is_compiled(monkeypatch):
    config, params = random_model()
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    with pytest.raises(UserError, match=r"cache of 512 rows of 64 tokens .* activations .* take a smaller batch_size"):
        compile_programs(config, prepare(params, config, "float32"), Shape(512, 16, 64, 16), Sampling().plan)
    with pytest.raises(UserError, match=r"activations of 64 texts of 96 tokens .* take shorter texts"):
        check_forward(config, 64, 96)
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    check_forward(config, 64, 96)
