import numpy as np
import pytest

from llmjax.errors import UserError
from llmjax.gguf import Blocks, hf_config, hf_tensors, read_gguf
from llmjax.gguf.model import _llama3_factors
from tests.gguf.files import LLAMA, llama_tensors, permuted, write


def llama_file(tmp_path, keys=None, extra=None, kind="F32"):
    tensors = llama_tensors()
    tensors["blk.0.attn_q.weight"] = permuted(tensors["blk.0.attn_q.weight"], 4)
    tensors["blk.0.attn_k.weight"] = permuted(tensors["blk.0.attn_k.weight"], 2)
    tensors |= extra or {}
    kinds = {name: (array, kind if array.ndim == 2 else "F32") for name, array in tensors.items()}
    return read_gguf(write(tmp_path / "llama.gguf", "llama", LLAMA | (keys or {}), kinds))


def test_the_config_of_a_llama(tmp_path):
    keys = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
    assert hf_config(llama_file(tmp_path, keys)) == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e5,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": 11,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }


def test_tensors_have_transformers_names_and_order(tmp_path):
    found = hf_tensors(llama_file(tmp_path))
    ours = llama_tensors()
    pairs = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "model.layers.0.input_layernorm.weight": "blk.0.attn_norm.weight",
        "model.layers.0.post_attention_layernorm.weight": "blk.0.ffn_norm.weight",
        "model.layers.0.self_attn.q_proj.weight": "blk.0.attn_q.weight",
        "model.layers.0.self_attn.k_proj.weight": "blk.0.attn_k.weight",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
        "model.layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
        "model.layers.0.mlp.gate_proj.weight": "blk.0.ffn_gate.weight",
        "model.layers.0.mlp.up_proj.weight": "blk.0.ffn_up.weight",
        "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    }
    assert found.keys() == pairs.keys()
    for name, theirs in pairs.items():
        np.testing.assert_array_equal(found[name].array(), ours[theirs], name)
        assert found[name].shape == ours[theirs].shape


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_rotary_rows_of_quantised_tensors(tmp_path, kind):
    tensor = hf_tensors(llama_file(tmp_path, kind=kind))["model.layers.0.self_attn.k_proj.weight"]
    assert isinstance(tensor.rows(), Blocks) == kind.startswith("Q")
    assert tensor.rows().shape == tensor.shape == (16, 32)
    ours = llama_tensors()["blk.0.attn_k.weight"]
    step = {"F16": 2e-3, "BF16": 2e-2, "Q8_0": 0.03, "Q4_0": 0.5, "Q4_1": 0.3}[kind]
    assert np.abs(tensor.array() - ours).max() < step, "rows in another order would be further off"


def test_a_head_of_its_own_and_one_that_repeats_the_embedding(tmp_path):
    own = llama_file(tmp_path, extra={"output.weight": np.ones((11, 32), np.float32)})
    assert hf_config(own)["tie_word_embeddings"] is False
    assert hf_tensors(own)["lm_head.weight"].shape == (11, 32)
    same = llama_file(tmp_path, extra={"output.weight": llama_tensors()["token_embd.weight"]})
    assert hf_config(same)["tie_word_embeddings"] is True
    assert "lm_head.weight" not in hf_tensors(same)


def test_rotary_scaling(tmp_path):
    scaled = llama_file(tmp_path, {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})
    assert hf_config(scaled)["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    llama3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3["original_max_position_embeddings"] = 8192
    table = _llama3_factors(8, 1e5, llama3).astype(np.float32)
    assert table.min() == 1 and table.max() == 32
    file = llama_file(tmp_path, extra={"rope_freqs.weight": table})
    assert hf_config(file)["rope_scaling"] == llama3
    assert not any("rope" in name for name in hf_tensors(file))
    with pytest.raises(UserError, match=r"'rope_freqs.weight' is not supported"):
        hf_config(llama_file(tmp_path, extra={"rope_freqs.weight": np.array([1, 2, 3, 4], np.float32)}))


def test_the_table_of_llama_3_is_that_of_transformers():
    pytest.importorskip("torch")
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 5e5}
    config = LlamaConfig(hidden_size=512, num_attention_heads=4, rope_parameters=scaling)
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 5e5 ** (-np.arange(0, 128, 2) / 128)
    np.testing.assert_allclose(plain / _llama3_factors(128, 5e5, scaling), theirs.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"llama.expert_count": 8}, "llama.expert_count=8 is not supported"),
        ({"llama.attention.max_alibi_bias": 8.0}, "llama.attention.max_alibi_bias=8.0 is not supported"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type='yarn' is not supported"),
        ({"llama.rope.scaling.attn_factor": 2.0}, "llama.rope.scaling.attn_factor is not supported"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count=4 is not supported beside heads of width 8"),
        ({"llama.attention.head_count": [4, 2]}, "llama.attention.head_count differs from layer to layer"),
    ],
)
def test_a_key_that_is_not_honoured_is_refused_by_name(tmp_path, keys, line):
    with pytest.raises(UserError, match=line):
        hf_config(llama_file(tmp_path, keys))


def test_missing_keys_unknown_tensors_and_architectures_are_named(tmp_path):
    path = tmp_path / "x.gguf"
    few = {key: value for key, value in LLAMA.items() if key != "llama.block_count"}
    with pytest.raises(UserError, match=r"has no llama.block_count"):
        hf_config(read_gguf(write(path, "llama", few, llama_tensors())))
    with pytest.raises(UserError, match=r"tensor 'blk.0.ffn_gate_exps.weight' is none that a llama has"):
        hf_tensors(llama_file(tmp_path, extra={"blk.0.ffn_gate_exps.weight": np.ones((2, 2), np.float32)}))
    with pytest.raises(UserError, match=r"'mamba' is not supported \(only llama, "):
        hf_config(read_gguf(write(path, "mamba", {}, llama_tensors())))
    with pytest.raises(UserError, match=r"has no tensor 'token_embd.weight'"):
        hf_config(read_gguf(write(path, "llama", LLAMA, {"output_norm.weight": np.ones(32, np.float32)})))
    with pytest.raises(UserError, match=r"'blk.0.attn_q.weight' of shape \(30, 32\) is not made of 4 heads"):
        hf_tensors(llama_file(tmp_path, extra={"blk.0.attn_q.weight": np.ones((30, 32), np.float32)}))


def test_qwen_rows_are_in_transformers_order_already(tmp_path):
    keys = {key.replace("llama.", "qwen3."): value for key, value in LLAMA.items()} | {"qwen3.attention.key_length": 8}
    tensors = llama_tensors() | {"blk.0.attn_q_norm.weight": np.ones(8, np.float32)}
    file = read_gguf(write(tmp_path / "x.gguf", "qwen3", keys, tensors))
    config, found = hf_config(file), hf_tensors(file)
    assert (config["model_type"], config["head_dim"]) == ("qwen3", 8)
    assert "attention_bias" not in config
    np.testing.assert_array_equal(
        found["model.layers.0.self_attn.q_proj.weight"].array(), tensors["blk.0.attn_q.weight"]
    )
    assert found["model.layers.0.self_attn.q_norm.weight"].shape == (8,)


def test_gpt2_is_turned_round(tmp_path):
    keys = {"gpt2.context_length": 16, "gpt2.embedding_length": 32, "gpt2.feed_forward_length": 64}
    keys |= {"gpt2.block_count": 1, "gpt2.attention.head_count": 2, "gpt2.attention.layer_norm_epsilon": 1e-5}
    up = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    tensors = {"token_embd.weight": np.ones((7, 32)), "position_embd.weight": np.ones((16, 32))}
    tensors |= {"blk.0.ffn_up.weight": up, "blk.0.ffn_up.bias": np.ones(64), "output_norm.bias": np.ones(32)}
    file = read_gguf(write(tmp_path / "x.gguf", "gpt2", keys, tensors))
    assert hf_config(file) | {"n_positions": 16, "n_embd": 32, "n_inner": 64, "n_head": 2} == hf_config(file)
    found = hf_tensors(file)
    np.testing.assert_array_equal(found["transformer.h.0.mlp.c_fc.weight"].array(), up.T)
    assert found["transformer.h.0.mlp.c_fc.weight"].shape == (32, 64)
    assert found["transformer.h.0.mlp.c_fc.bias"].shape == (64,)
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.bias"} <= found.keys()


def test_bert(tmp_path):
    keys = {"bert.context_length": 16, "bert.embedding_length": 32, "bert.feed_forward_length": 64}
    keys |= {"bert.block_count": 1, "bert.attention.head_count": 2, "bert.attention.layer_norm_epsilon": 1e-12}
    keys |= {"bert.attention.causal": False, "bert.pooling_type": 1}
    tensors = {"token_embd.weight": np.ones((7, 32)), "token_types.weight": np.ones((2, 32))}
    tensors |= {"token_embd_norm.bias": np.ones(32), "blk.0.layer_output_norm.weight": np.ones(32)}
    file = read_gguf(write(tmp_path / "x.gguf", "bert", keys, tensors))
    assert (hf_config(file)["layer_norm_eps"], hf_config(file)["type_vocab_size"]) == (1e-12, 2)
    assert set(hf_tensors(file)) == {
        "embeddings.word_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.0.output.LayerNorm.weight",
    }
