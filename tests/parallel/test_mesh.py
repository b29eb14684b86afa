"""A mesh of eight simulated devices gives the numbers of one device, and one device the program that it was."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmjax.errors import UserError
from llmjax.infer.step import decode_step
from llmjax.models.cache import empty_cache
from llmjax.models.families import FAMILIES, from_size
from llmjax.models.layout import check_heads, table_of
from llmjax.models.params import init_params, param_shapes, prepare
from llmjax.parallel.fused import in_parts, out_of_parts
from llmjax.parallel.layout import shardings
from llmjax.parallel.mesh import MeshConfig, abstract_mesh, make_mesh, mesh_sizes, on_mesh
from tests import codegen

MESHES = ("data 8", "fsdp 8", "data 2, tensor 4", "data 2, fsdp 2, tensor 2")


def simulate(repo, folder, part):
    """What tests/parallel/simulated.py finds: in one process, which takes a while to start."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(repo)}
    environment["XLA_FLAGS"] = codegen.FLAGS
    command = [sys.executable, "-m", "tests.parallel.simulated", str(folder), part]
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Involuntary full rematerialization" not in done.stderr, "XLA finds no way between two layouts"
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def found(repo, tmp_path_factory):
    return simulate(repo, tmp_path_factory.mktemp("quick"), "quick")


@pytest.fixture(scope="module")
def whole(repo, tmp_path_factory):
    return simulate(repo, tmp_path_factory.mktemp("whole"), "whole")


def near(found, name, base="one", first=0):
    np.testing.assert_allclose(found["training"][name], found["training"][base][first:], rtol=0, atol=1e-5)


def test_losses_are_those_of_one_device(found):
    one = found["training"]["one"]
    assert len(one) == 20 and one[-1] < one[0]
    near(found, MESHES[-1])
    near(found, "8 to 1", first=10)


@pytest.mark.slow
def test_losses_on_every_mesh(whole):
    for mesh in MESHES:
        near(whole, mesh)
    near(whole, "scan", "scan one")  # scanned layers with remat
    near(whole, "8 to 2", first=10)
    near(whole, "1 to 8", first=10)


def test_a_device_holds_its_part(found):
    alone = found["bytes"]["one"]
    assert found["bytes"]["data 8"] == alone
    assert found["bytes"]["fsdp 8"] < alone / 5  # biases and norms are whole everywhere
    assert found["bytes"]["data 2, tensor 4"] < alone / 2.5


def test_a_device_draws_the_dropout_of_its_rows(found):
    assert found["words"] == {"same": True, "all": False}


def test_a_measured_op_is_one_devices(found):
    measured = found["measured"]
    assert (measured["devices"], measured["runs"], measured["calls"]) == (8, 10, 1)
    assert 0 < measured["product"] <= measured["traced"] and 0 < measured["covered"] <= 1
    assert "10 runs on 8 devices, ops' times are one's" in " ".join(measured["said"].split())


def same_tokens(found, model):
    one, four = (found["generation"][f"{model} {sizes}"] for sizes in ((1, 1, 1), (2, 1, 4)))
    assert one == four and len({tuple(ids) for ids in one}) == 3


def test_greedy_tokens_on_tensor_4(found):
    same_tokens(found, "gpt2 float32")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gpt2 float32", "llama float32", "llama int8"])
def test_greedy_tokens_of_every_family(whole, model):
    same_tokens(whole, model)


@pytest.mark.slow
def test_labels_vectors_and_perplexity(whole):
    one, eight = (whole["inference"][str(sizes)] for sizes in ((1, 1, 1), (2, 2, 2)))
    assert one["labels"] == eight["labels"]
    np.testing.assert_allclose(one["scores"], eight["scores"], atol=1e-5)
    np.testing.assert_allclose(one["vectors"], eight["vectors"], atol=1e-5)
    assert one["loss"] == pytest.approx(eight["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "devices", "sizes"),
    [((-1, 1, 1), 8, (8, 1, 1)), ((2, -1, 2), 8, (2, 2, 2)), ((1, 1, 4), 8, (1, 1, 4)), ((-1, 1, 1), 1, (1, 1, 1))],
)
def test_sizes_of_a_mesh(asked, devices, sizes):
    assert mesh_sizes(MeshConfig(*asked), devices) == sizes


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((16, 1, 1), "mesh.data=16, mesh.fsdp=1, mesh.tensor=1: 16 devices, more than there are (devices here: 8)."),
        ((-1, 3, 1), "3 devices, which does not divide them"),
        ((-1, -1, 1), "one of them -1"),
        ((0, 1, 1), "each must be 1 or more"),
    ],
)
def test_a_mesh_that_cannot_be_is_one_line(asked, said):
    with pytest.raises(UserError) as error:
        mesh_sizes(MeshConfig(*asked), 8)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_heads_and_sizes_that_do_not_divide_are_one_line():
    tiny = from_size("tiny")
    with on_mesh(abstract_mesh((1, 1, 4))), pytest.raises(UserError, match=r"mesh.tensor=4 .* 3 key-value heads"):
        check_heads(from_size("smollm2-135m", num_attention_heads=12))
    with pytest.raises(UserError, match=r"h_0/attn/c_attn/kernel of 32 x 96 cannot be divided over fsdp=3, tensor=1"):
        shardings(param_shapes(tiny, "lm"), table_of(tiny), abstract_mesh((1, 3, 1)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stacked", [False, True])
def test_every_matrix_of_a_family_is_divided(family, stacked):
    small = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32}
    small |= {"intermediate_size": 64, "head_dim": 8, "n_layer": 1, "n_embd": 32, "n_head": 4, "vocab_size": 64}
    kind = FAMILIES[family].config
    config = kind(**{name: value for name, value in small.items() if name in kind.__dataclass_fields__})
    shapes = param_shapes(config, "lm")
    if stacked:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype), shapes)
    lie = shardings(shapes, table_of(config), abstract_mesh((1, 2, 2)))
    for at, sharding in jax.tree_util.tree_leaves_with_path(lie):
        names = [entry.key for entry in at]
        used = {axis for entry in sharding.spec for axis in ((entry,) if isinstance(entry, str) else entry or ())}
        inside = any(name[-1:].isdigit() for name in names[:1])
        if names[-1] == "kernel" and (inside or names[0] == "lm_head"):
            assert used == {"fsdp", "tensor"}, names
        elif names[-1] in ("bias", "scale"):
            assert not used, names


def test_the_mesh_knows_of_no_model(repo):
    for file in (repo / "llmjax" / "parallel").glob("*.py"):
        assert "llmjax.models" not in file.read_text("utf-8"), file.name


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_heads_of_a_fused_product_come_back_in_order(parts):
    sizes = (16, 8, 8)
    x = jnp.arange(3 * 32).reshape(3, 32)
    laid = in_parts(x, sizes, parts)
    for got, want in zip(out_of_parts(laid, sizes, parts), jnp.split(x, [16, 24], axis=-1), strict=True):
        np.testing.assert_array_equal(got, want)
    device = laid.reshape(3, parts, -1)[:, 0]  # what the first one holds: the first heads of each
    want = np.concatenate([np.split(x, [16, 24], axis=-1)[n][:, : sizes[n] // parts] for n in range(3)], axis=-1)
    np.testing.assert_array_equal(device, want)


def test_on_one_device_nothing_changes():
    config = from_size("tiny")

    def lowered():
        params = jax.eval_shape(lambda params: prepare(params, config, "float32"), param_shapes(config, "lm"))
        cache = jax.eval_shape(lambda: empty_cache(config, 2, 64, "float32"))
        token_B = jax.ShapeDtypeStruct((2,), jnp.int32)
        step = jax.jit(lambda params, token_B, cache: decode_step(params, token_B, cache, config=config))
        return step.lower(params, token_B, cache).as_text()

    before = lowered()
    assert "sharding" not in before and "sdy" not in before
    assert jax.device_count() == 1
    with on_mesh(make_mesh(MeshConfig())):
        assert lowered() == before
        assert isinstance(
            jax.tree.leaves(init_params(config, "lm", jax.random.key(0)))[0].sharding, jax.sharding.SingleDeviceSharding
        )
