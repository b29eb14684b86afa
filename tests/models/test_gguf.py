"""GGUF files as checkpoints: the same parameters as from a folder that transformers would have."""

import jax
import numpy as np
import pytest

from llmjax.errors import UserError
from llmjax.infer.checkpoint import load_prepared
from llmjax.kernels.formats import Groups
from llmjax.models.folders import named_config, read_config, resolve_folder
from llmjax.models.params import init_params, param_shapes, prepare
from llmjax.models.weights import load_pretrained, save_pretrained
from tests.gguf.files import LLAMA, llama_tensors, permuted, write


def file_of(tmp_path, config, params):
    """Writes a Llama's parameters as llama.cpp's converter does."""
    save_pretrained(tmp_path / "folder", config, params, "lm")
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
    }  # fmt: skip
    from safetensors.numpy import load_file

    tensors = {}
    for name, array in load_file(tmp_path / "folder" / "model.safetensors").items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[-2])
        tensors[name] = permuted(array, heads) if heads else array
    return write(tmp_path / "model.gguf", "llama", LLAMA, tensors)


def test_parameters_are_those_of_the_folder(tmp_path):
    config = read_config(write(tmp_path / "shape.gguf", "llama", LLAMA, llama_tensors()))
    params = init_params(config, "lm", jax.random.key(0))
    path = file_of(tmp_path, config, params)
    assert resolve_folder(path) == path
    found, loaded = load_pretrained(path, "lm")
    assert found == config == named_config(str(path))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_missing_tensors_are_named(tmp_path):
    tensors = llama_tensors()
    del tensors["blk.0.ffn_up.weight"]
    with pytest.raises(UserError, match=r"missing: layers.0.mlp.up_proj.weight"):
        load_pretrained(write(tmp_path / "x.gguf", "llama", LLAMA, tensors), "lm")


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_four_bits_stay_as_the_file_has_them(tmp_path, kind):
    tensors = {name: (array, kind) if array.ndim == 2 else array for name, array in llama_tensors().items()}
    path = write(tmp_path / "model.gguf", "llama", LLAMA, tensors)
    config, whole = load_pretrained(path, "lm")
    prepared = load_prepared(path, "int4")
    for name in ("q_proj", "k_proj"):
        kernel = prepared["layers_0"]["self_attn"][name]["kernel"]
        assert isinstance(kernel, Groups)
        np.testing.assert_array_equal(kernel.dequantised().T, whole["layers_0"]["self_attn"][name]["kernel"])
    assert prepared["embed_tokens"]["embedding"].values_ED.dtype == np.int8
    drawn = jax.eval_shape(lambda params: prepare(params, config, "int4"), param_shapes(config, "lm"))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), prepared) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), drawn
    ), "programs made from shapes alone take the parameters"
