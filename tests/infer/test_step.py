"""Prefill and decode against the whole forward pass, against each other and against transformers."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from llmjax.infer.step import decode_step, prefill, score
from llmjax.kernels.attention import QUERIES
from llmjax.kernels.formats import FORMATS, activation_dtype
from llmjax.memory import tree_bytes
from llmjax.models.cache import Cache, bucket, empty_cache
from llmjax.models.params import prepare
from tests.infer.models import full_logits, golden_model, random_model

LENGTHS = (11, 1, 6)
# Largest error of a logit against float32, as a part of the logits' standard deviation.
ROUNDING = {"float32": 1e-4, "bfloat16": 0.06, "int8": 0.2, "int4": 1.5}


@functools.cache
def compiled(config):
    return (
        jax.jit(functools.partial(prefill, config=config), donate_argnums=3),
        jax.jit(functools.partial(decode_step, config=config), donate_argnums=2),
    )


def prompts(config, lengths=LENGTHS):
    rng = np.random.default_rng(3)
    tokens_BL = rng.integers(0, config.vocab_size, (len(lengths), max(lengths)), dtype=np.int32)
    return tokens_BL, np.array(lengths, np.int32)


def logits_of(config, params, format, tokens_BL, lengths_B, following_BT, slots=32):
    """Logits [B, T + 1, V]: after the prompts, and after each following token."""
    run_prompt, run_step = compiled(config)
    prepared = prepare(params, config, format)
    cache = empty_cache(config, len(tokens_BL), slots, activation_dtype(format))
    logits_BV, cache = run_prompt(prepared, tokens_BL, lengths_B, cache)
    found = [np.asarray(logits_BV)]
    for token_B in following_BT.T:
        logits_BV, cache = run_step(prepared, token_B, cache)
        found.append(np.asarray(logits_BV))
    assert int(cache.end) == tokens_BL.shape[1] + following_BT.shape[1]
    return np.stack(found, axis=1)


@pytest.mark.parametrize("format", FORMATS)
def test_cached_decoding_equals_the_full_forward_pass(format):
    config, params = random_model()
    tokens_BL, lengths_B = prompts(config)
    following_BT = np.random.default_rng(4).integers(0, config.vocab_size, (3, 12), dtype=np.int32)
    got = logits_of(config, params, format, tokens_BL, lengths_B, following_BT)
    for row, length in enumerate(LENGTHS):
        want = full_logits(config, params, [*tokens_BL[row, :length], *following_BT[row]])[length - 1 :]
        limit = ROUNDING[format] if format == "float32" else ROUNDING[format] * want.std()
        assert np.abs(got[row] - want).max() <= limit


@pytest.mark.parametrize("sizes", [{}, {"n_head": 4}])
def test_keys_and_values_in_8_bits_are_near_and_a_prompt_reads_them_as_steps_do(sizes):
    config, params = random_model(**sizes)
    tokens_BL, lengths_B = prompts(config)
    following_BT = np.random.default_rng(4).integers(0, config.vocab_size, (3, 12), dtype=np.int32)
    short = dataclasses.replace(config, kv_cache="int8")
    plain, got = (logits_of(c, params, "float32", tokens_BL, lengths_B, following_BT) for c in (config, short))
    assert 0 < np.abs(got - plain).max() <= 0.05 * plain.std()
    whole_BL = np.concatenate([tokens_BL[:1], following_BT[:1]], axis=1)  # the row without padding
    at_once = logits_of(short, params, "float32", whole_BL, np.array([whole_BL.shape[1]]), following_BT[:1, :0])
    assert np.abs(at_once[0, 0] - got[0, -1]).max() <= 1e-4
    kept = jax.eval_shape(lambda: empty_cache(short, 3, 32, "bfloat16"))
    assert tree_bytes(kept.k_NSK) == short.layers * 3 * 32 * short.layer.kv_heads * (short.layer.head_width + 4)


def test_prompts_of_several_blocks_equal_the_full_forward_pass():
    """Longer than two blocks of queries, with a rest; rows that are padded by more than a block and by less."""
    length = 2 * QUERIES + 30
    config, params = random_model(n_positions=length + 2)
    tokens_BL, lengths_B = prompts(config, (length, 100, length - 1))
    got = logits_of(config, params, "float32", tokens_BL, lengths_B, np.full((3, 2), 5, np.int32), slots=length + 2)
    for row, count in enumerate(lengths_B):
        want = full_logits(config, params, [*tokens_BL[row, :count], 5, 5])[count - 1 :]
        assert np.abs(got[row] - want).max() <= 1e-4


@pytest.mark.parametrize(
    "overrides",
    [
        {"tie_word_embeddings": False},
        {"n_inner": 24, "activation_function": "relu", "layer_norm_epsilon": 1e-3},
        {"n_layer": 2, "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        {"scale_attn_weights": False, "n_head": 4},
        {"vocab_size": 256},
    ],
)
def test_every_variant_equals_the_full_forward_pass(overrides):
    config, params = random_model(**{"n_layer": 1, **overrides})
    tokens_BL, lengths_B = prompts(config)
    following_BT = np.full((3, 2), 5, np.int32)
    got = logits_of(config, params, "float32", tokens_BL, lengths_B, following_BT)
    for row, length in enumerate(LENGTHS):
        want = full_logits(config, params, [*tokens_BL[row, :length], 5, 5])[length - 1 :]
        assert np.abs(got[row] - want).max() <= 1e-4


@pytest.mark.parametrize("name", ["plain", "variant"])
def test_decoding_gives_the_logits_of_transformers(name, tmp_path):
    config, params, golden = golden_model(name, tmp_path)
    lengths_B = golden["mask"].sum(axis=1).astype(np.int32)
    length = golden["mask"].shape[1]
    tokens_BL = np.stack([np.roll(row, size - length) for row, size in zip(golden["tokens"], lengths_B, strict=True)])
    got = logits_of(config, params, "float32", tokens_BL, lengths_B, golden["new"][:, :-1])
    assert np.abs(got - golden["scores"]).max() <= 1e-4
    assert (got.argmax(-1) == golden["new"]).all()


@pytest.mark.parametrize("format", FORMATS)
def test_a_batch_equals_its_rows(format):
    config, params = random_model()
    tokens_BL, lengths_B = prompts(config)
    following_BT = np.random.default_rng(5).integers(0, config.vocab_size, (3, 4), dtype=np.int32)
    together = logits_of(config, params, format, tokens_BL, lengths_B, following_BT)
    for row, length in enumerate(LENGTHS):
        alone = logits_of(
            config,
            params,
            format,
            tokens_BL[row : row + 1, :length],
            lengths_B[row : row + 1],
            following_BT[row : row + 1],
        )
        limit = 1e-4 if format == "float32" else ROUNDING[format] * together.std()
        assert np.abs(together[row] - alone[0]).max() <= limit


def test_what_stands_in_the_padding_and_in_an_old_cache_changes_nothing():
    config, params = random_model()
    prepared = prepare(params, config, "float32")
    tokens_BL, lengths_B = prompts(config)
    padding_BL = np.arange(tokens_BL.shape[1]) >= lengths_B[:, None]
    run_prompt, run_step = compiled(config)
    found = []
    for fill, old in ((0, 0.0), (299, 1e4)):
        cache = empty_cache(config, 3, 32, "float32")
        cache = cache._replace(k_NSK=tuple(k + old for k in cache.k_NSK), v_NSK=tuple(v - old for v in cache.v_NSK))
        first, cache = run_prompt(prepared, np.where(padding_BL, fill, tokens_BL), lengths_B, cache)
        second, _ = run_step(prepared, np.array([1, 2, 3], np.int32), cache)
        found.append((np.asarray(first), np.asarray(second)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_score_gives_every_tokens_log_probability():
    config, params = random_model()
    tokens_BL, lengths_B = prompts(config)
    cache = empty_cache(config, 3, 16, "float32")
    run = jax.jit(functools.partial(score, config=config))
    scores_BL, _ = run(prepare(params, config, "float32"), tokens_BL, lengths_B, cache)
    for row, length in enumerate(LENGTHS):
        logprobs = log_softmax(full_logits(config, params, list(tokens_BL[row, :length])), axis=1)
        want = [0.0, *(float(logprobs[i, tokens_BL[row, i + 1]]) for i in range(length - 1))]
        np.testing.assert_allclose(scores_BL[row], [*want, *[0.0] * (max(LENGTHS) - length)], atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_the_step_copies_neither_weights_nor_the_cache(format, rows):
    """The optimised program of the CPU holds no copy or transpose of a weight or of a whole cache."""
    config, params = random_model(n_embd=128, n_head=2, vocab_size=512)
    prepared = prepare(params, config, format)
    cache = empty_cache(config, rows, 128, activation_dtype(format))
    text = compiled(config)[1].lower(prepared, np.zeros(rows, np.int32), cache).compile().as_text()
    smallest = min(128 * 128, rows * 128 * 128)
    for shape, op in re.findall(r"= \w+\[([\d,]+)\]\S* (copy|transpose)\(", text):
        assert np.prod([int(size) for size in shape.split(",")]) < smallest, (op, shape)
    assert f"h_{config.layers - 1}/mlp/c_fc" in text
    for scope in ("wte", "wpe", "h_0/ln_1", "h_0/attn/c_attn", "h_1/attn/scores", "h_1/attn/mix", "ln_f", "lm_head"):
        assert f"GPT2/{scope}" in text, scope


def test_cache_buckets_hold_their_length_and_waste_at_most_a_third():
    assert [bucket(length) for length in (1, 64, 65, 97, 129, 193, 1024)] == [64, 64, 96, 128, 192, 256, 1024]
    for length in range(1, 2000):
        size = bucket(length)
        assert length <= size
        assert size == 64 or bucket(size) == size
        assert size <= 64 or 3 * length > 2 * size


def test_the_cache_is_a_pytree_of_a_leaf_a_layer():
    config, _ = random_model()
    cache = empty_cache(config, 2, 48, "bfloat16")
    assert cache.slots == 48
    assert len(jax.tree.leaves(cache)) == 2 * config.layers + 2
    assert isinstance(jax.tree.map(lambda leaf: leaf, cache), Cache)
