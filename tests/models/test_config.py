"""GPT-2's config: reading and writing transformers' config.json, and refusing what is not computed."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.errors import UserError
from llmjax.models.activation import ACTIVATIONS
from llmjax.models.families import FAMILIES, SIZES, from_hf, from_size
from llmjax.models.gpt2 import GPT2Config

OURS = {"dtype", "param_dtype", "scan_layers", "remat", "kv_cache"}

configs = st.builds(
    lambda heads, width, labels, **fields: GPT2Config(
        n_head=heads, n_embd=heads * width, label_names=tuple(labels), **fields
    ),
    heads=st.integers(1, 8),
    width=st.integers(1, 64),
    labels=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=12, unique=True),
    vocab_size=st.integers(1, 60000),
    n_layer=st.integers(1, 48),
    n_inner=st.none() | st.integers(1, 4096),
    activation_function=st.sampled_from(ACTIVATIONS),
    attn_pdrop=st.floats(0, 1, exclude_max=True),
    layer_norm_epsilon=st.floats(1e-12, 1),
    scale_attn_weights=st.booleans(),
    scale_attn_by_inverse_layer_idx=st.booleans(),
    reorder_and_upcast_attn=st.booleans(),
    tie_word_embeddings=st.booleans(),
    pad_token_id=st.none() | st.integers(0, 50000),
)


@settings(deadline=None)
@given(config=configs, head=st.sampled_from(["lm", "classifier", "none"]))
def test_a_config_survives_its_file(config, head):
    text = json.dumps(config.to_hf(head))
    assert from_hf(json.loads(text), "config.json") == config


@settings(deadline=None)
@given(configs)
def test_transformers_reads_the_same_fields(config):
    transformers = pytest.importorskip("transformers")
    raw = json.loads(json.dumps(config.to_hf("classifier")))
    theirs = transformers.GPT2Config(**raw)
    for field in dataclasses.fields(config):
        if field.name not in OURS | {"label_names", "head_dim"}:
            assert getattr(theirs, field.name) == getattr(config, field.name), field.name
    assert [theirs.id2label[i] for i in range(theirs.num_labels)] == list(config.label_names)


def test_openais_own_config_is_read():
    raw = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
        "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "vocab_size": 50257,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }  # fmt: skip
    assert from_hf(raw, "config.json") == from_size("gpt2")


def test_older_names_and_overrides():
    raw = {"model_type": "gpt2", "n_ctx": 512, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
    raw |= {"attn_pdrop": 0, "eos_token_id": [7, 8], "num_labels": 3}
    config = from_hf(raw, "x", dtype="bfloat16", resid_pdrop=0.0)
    assert (config.context, config.width, config.layer.heads, config.layers) == (512, 64, 4, 3)
    assert (config.attn_pdrop, config.eos_token_id, config.num_labels) == (0.0, 7, 3)
    assert (config.dtype, config.resid_pdrop, config.layer.head_width, config.layer.inner) == ("bfloat16", 0.0, 16, 256)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"model_type": "t5"}, "model_type='t5'"),
        ({}, "no model_type"),
        ({"model_type": "gpt2", "rope_theta": 1e4}, "rope_theta=10000.0 is no field of gpt2"),
        ({"model_type": "gpt2", "attn_pdrop": 1.5}, "attn_pdrop=1.5 must be 0 or more and below 1"),
        ({"model_type": "gpt2", "add_cross_attention": True}, "add_cross_attention=True"),
        ({"model_type": "gpt2", "problem_type": "regression"}, "problem_type='regression'"),
        ({"model_type": "gpt2", "quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "gpt2", "pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"model_type": "gpt2", "n_layer": "12"}, "n_layer='12' should be of type int"),
        ({"model_type": "gpt2", "n_layer": True}, "n_layer=True"),
        ({"model_type": "gpt2", "n_layer": 10**8}, "100000000 layers must be at least 1 and at most 1,000"),
        ({"model_type": "gpt2", "vocab_size": 10**30}, "vocab_size=1000000000000000000000000000000 must be at most"),
        (
            {"model_type": "gpt2", "eos_token_id": [10**30]},
            "eos_token_id=1000000000000000000000000000000 must",
        ),
        ({"model_type": "gpt2", "attn_pdrop": 10**400}, "attn_pdrop=100000"),
        ({"model_type": "gpt2", "resid_pdrop": float("nan")}, "resid_pdrop=nan must be a finite number"),
        ({"model_type": "gpt2", "num_labels": 10**12}, "num_labels=1000000000000"),
        ({"model_type": "gpt2", "n_layer": 0}, "n_layer=0"),
        ({"model_type": "gpt2", "n_embd": 100}, "not a multiple of n_head=12"),
        ({"model_type": "gpt2", "attn_pdrop": None}, "attn_pdrop=None"),
        ({"model_type": "gpt2", "activation_function": "gelu_knew"}, "Did you mean 'gelu_new'?"),
        ({"model_type": "gpt2", "id2label": {"zero": "bad"}}, "id2label"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(raw, says):
    with pytest.raises(UserError, match=r"config.json|GPT2Config") as error:
        from_hf(raw, "config.json")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_size_and_dtype_name_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'gpt2-medium'"):
        from_size("gpt2-medum")
    with pytest.raises(UserError, match="float32, bfloat16"):
        from_size("tiny", dtype="float64")


def test_every_size_has_whole_heads():
    assert {size: from_size(size).layer.head_width for size in FAMILIES["gpt2"].sizes} == {
        "tiny": 16, "small": 32, "distilgpt2": 64, "gpt2": 64, "gpt2-medium": 64, "gpt2-large": 64, "gpt2-xl": 64,
    }  # fmt: skip


LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type='yarn'"),
        (
            LLAMA | {"rope_parameters": {"rope_theta": 1e4, "attention_factor": 2.0}},
            "attention_factor=2.0",
        ),
        (LLAMA | {"num_key_value_heads": 3}, "num_key_value_heads=3"),
        (LLAMA | {"hidden_size": 66}, "hidden_size=66"),
        (LLAMA | {"hidden_size": 60}, "width 15"),
        (LLAMA | {"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]}, "layer_types="),
        (LLAMA | {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 3}, "max_window_layers=3"),
        (LLAMA | {"model_type": "mixtral", "num_local_experts": 8}, "Did you mean 'mistral'?"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"model_type": "bert", "hidden_size": 100}, "num_attention_heads=12"),
        ({"model_type": "roberta", "max_position_embeddings": 2}, "leaves no position"),
    ],
)
def test_what_other_families_do_not_compute_is_refused_by_name(raw, says):
    with pytest.raises(UserError) as error:
        from_hf(raw, "config.json")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_rope_is_read_as_both_generations_of_files_write_it():
    fields = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    old = LLAMA | {"rope_theta": 5e5, "rope_scaling": fields | {"original_max_position_embeddings": 8192}}
    new = LLAMA | {"rope_parameters": fields | {"rope_theta": 5e5, "original_max_position_embeddings": 8192}}
    older = LLAMA | {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert from_hf(old, "x") == from_hf(new, "x")
    rope = from_hf(new, "x").layer.rope
    assert (rope.theta, rope.scaling, rope.factor, rope.original) == (5e5, "llama3", 8.0, 8192)
    assert from_hf(older, "x").layer.rope.scaling == "linear"


@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_every_family_survives_its_file(size):
    config = from_size(size)
    assert from_hf(json.loads(json.dumps(config.to_hf("classifier"))), "x") == config
