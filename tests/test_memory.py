"""What cannot fit is refused from shapes."""

import re

import jax
import jax.numpy as jnp
import pytest

from llmjax.cycles.profile import runnable
from llmjax.errors import UserError
from llmjax.memory import available, require, size_text, tree_bytes
from llmjax.models.families import from_size
from llmjax.models.memory import divided
from llmjax.models.params import param_shapes
from llmjax.parallel.mesh import abstract_mesh, on_mesh
from llmjax.train.memory import check_training, training_bytes


def test_what_is_needed_is_told_by_parts():
    require({"weights": 10, "cache": 5}, "do less", 15)
    require({"weights": 10**30}, "do less", None)
    with pytest.raises(UserError) as error:
        require({"weights": 3 * 2**30, "cache": 0, "rest": 2**20}, "do less", 2**30)
    assert str(error.value) == (
        "not enough memory: 3.00 GiB needed, 1.00 GiB free: weights 3.00 GiB, rest 1.0 MiB; do less."
    )
    assert size_text(5 * 2**40) == "5,120.00 GiB"


def test_this_machine_has_some_memory():
    free = available()
    assert free is None or free > 2**20


def test_parameters_are_counted_as_they_are():
    config = from_size("tiny", vocab_size=500, label_names=("a", "b", "c"))
    assert training_bytes(config, 0, 0, False)["parameters"] == tree_bytes(param_shapes(config, "classifier"))


@pytest.mark.parametrize(
    ("rows", "eval_rows", "said"),
    [(2**20, 1, "activations of 1048576 texts of 128 tokens"), (1, 2**20, "evaluation of 1048576 texts")],
)
def test_batches_that_cannot_fit_are_refused(rows, eval_rows, said):
    config = from_size("gpt2")
    check_training(config, 1, 1, 128, True, 16 * 2**30)
    with pytest.raises(UserError, match=said):
        check_training(config, rows, eval_rows, 128, True, 16 * 2**30)


def test_a_mesh_that_would_fit_is_named():
    config, free = from_size("gpt2"), 2 * 2**30  # a state of 1.9 GB, whole on each device, and activations
    with on_mesh(abstract_mesh((8, 1, 1))), pytest.raises(UserError) as error:
        check_training(config, 64, 64, 128, True, free)
    said = str(error.value)
    assert "a device's part of 8" in said and "\n" not in said
    found = re.search(r"--config.mesh.data=(\d) --config.mesh.fsdp=(\d) --config.mesh.tensor=(\d)", said)
    sizes = tuple(map(int, found.groups()))
    assert sizes[1] > 1 and sizes[2] == 1 and sizes[0] * sizes[1] == 8
    with on_mesh(abstract_mesh(sizes)):
        check_training(config, 64, 64, 128, True, free)
    with on_mesh(abstract_mesh((8, 1, 1))), pytest.raises(UserError, match=r"data.max_length\.$"):
        check_training(config, 64, 64, 128, True, 2**20)


def test_a_device_holds_its_part_of_the_state_and_of_the_rows():
    needed = {"parameters": 800, "activations of 8 texts": 1600}
    assert divided(needed, (2, 4, 1)) == {"parameters": 200, "activations of 8 texts": 200}
    assert divided(needed, (8, 1, 1), here=8) == {"parameters": 6400, "activations of 8 texts": 1600}


def test_programs_too_large_to_run_are_refused_before_they_are_compiled():
    huge = jax.ShapeDtypeStruct((2**20, 2**20), jnp.float32)
    with pytest.raises(UserError, match=r"not enough memory: .* arguments 4,096\.00 GiB; measure a smaller program"):
        runnable(lambda x: x + 1, huge)
    with pytest.raises(UserError, match="results 4,096"):
        runnable(lambda x: jnp.broadcast_to(x, (2**20, 2**20)), jax.ShapeDtypeStruct((), jnp.float32))
