"""Live parity of every family but GPT-2 with transformers' torch models: needs the `reference` extra (torch)."""

import functools
import json

import jax
import numpy as np
import pytest

from llmjax.models.cache import empty_cache
from llmjax.models.families import FAMILIES, make_model
from llmjax.models.params import prepare
from llmjax.models.weights import load_pretrained, save_pretrained
from tests.models.families import CASES, LENGTHS, heads

torch = pytest.importorskip(
    "torch", reason="parity with torch needs the `reference` extra: pip install -e .[reference]"
)
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
FIRST = {family: case for case, (family, _) in reversed(CASES.items())}
# A family's first case has every head, its others the one that shows every token.
ALL = [(c, head) for c, (f, _) in CASES.items() for head in (heads(f) if FIRST[f] == c else ("lm",))]


def torch_model(case: str, head: str):
    """A torch model with every parameter, biases and norms too, drawn at random."""
    family, fields = CASES[case]
    config = transformers.AutoConfig.for_model(family, **fields, num_labels=3)
    cls = getattr(transformers, FAMILIES[family].architectures[head])
    model = cls._from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = float("norm" in name.lower() and name.endswith("weight"))
            scale = 0.1 if parameter.ndim == 1 else 0.7 * parameter.shape[-1] ** -0.5
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model


def padded(config, side: str):
    rng = np.random.default_rng(1)
    longest = max(LENGTHS)
    tokens_BL = rng.integers(3, 60, (len(LENGTHS), longest), dtype=np.int32)
    mask_BL = np.arange(longest) < np.array(LENGTHS)[:, None]
    mask_BL = mask_BL[:, ::-1] if side == "left" else mask_BL
    return np.where(mask_BL, tokens_BL, config.pad_token_id).astype(np.int32), mask_BL


def theirs(model, head, tokens_BL, mask_BL, **more):
    with torch.no_grad():
        found = model(
            torch.from_numpy(tokens_BL).long(), attention_mask=torch.from_numpy(mask_BL.copy()).long(), **more
        )
    name = {"none": "last_hidden_state", "pooler": "pooler_output"}.get(head, "logits")
    return getattr(found, name).numpy()


def worst(ours, model, head, config) -> float:
    """Largest difference at real tokens, over both padding sides."""
    worst = 0.0
    for side in ("right", "left"):
        tokens_BL, mask_BL = padded(config, side)
        got, want = np.asarray(ours(tokens_BL, mask_BL)), theirs(model, head, tokens_BL, mask_BL)
        assert np.abs(want).max() > 0.1
        difference = np.abs(got - want)
        worst = max(worst, float((difference[mask_BL] if head in ("lm", "none") else difference).max()))
    return worst


@functools.cache
def applied(config, head):
    return jax.jit(make_model(config, head).apply)


@pytest.mark.parametrize(("case", "head"), ALL)
def test_folders_of_torch_give_its_results_and_come_back(case, head, tmp_path):
    model = torch_model(case, head)
    model.save_pretrained(tmp_path / "theirs")
    config, params = load_pretrained(tmp_path / "theirs", head)
    assert worst(lambda *args: applied(config, head)({"params": params}, *args), model, head, config) <= TOLERANCE

    save_pretrained(tmp_path / "ours", config, params, head)
    cls = type(model)
    back, info = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    missing = {name for name in info["missing_keys"] if "pooler" not in name}  # transformers' body makes one at random
    assert not missing and not info["unexpected_keys"] and not info["mismatched_keys"]
    tokens_BL, mask_BL = padded(config, "right")
    again, first = (theirs(each, head, tokens_BL, mask_BL) for each in (back, model))
    read = mask_BL if again.ndim == 3 else slice(None)
    np.testing.assert_allclose(again[read], first[read], atol=1e-5)
    raw = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert FAMILIES[config.family].config.from_hf(raw, "config.json") == config


@pytest.mark.parametrize("case", [case for case, (family, _) in CASES.items() if FAMILIES[family].causal])
def test_a_cache_goes_on_as_torch_does(case, tmp_path):
    from llmjax.infer.step import decode_step, prefill

    model = torch_model(case, "lm")
    model.save_pretrained(tmp_path)
    config, params = load_pretrained(tmp_path, "lm")
    prepared = prepare(params, config, "float32")
    tokens_BL, _ = padded(config, "right")
    following_BT = np.random.default_rng(2).integers(3, 60, (len(LENGTHS), 5), dtype=np.int32)
    cache = empty_cache(config, len(LENGTHS), 40, "float32")
    run = jax.jit(functools.partial(prefill, config=config))
    step = jax.jit(functools.partial(decode_step, config=config))
    logits_BV, cache = run(prepared, tokens_BL, np.array(LENGTHS, np.int32), cache)
    found = [logits_BV]
    for token_B in following_BT.T:
        logits_BV, cache = step(prepared, token_B, cache)
        found.append(logits_BV)
    for row, length in enumerate(LENGTHS):
        whole_1L = np.concatenate([tokens_BL[row, :length], following_BT[row]])[None]
        want = theirs(model, "lm", whole_1L, np.ones_like(whole_1L, bool))[0, length - 1 :]
        np.testing.assert_allclose(np.stack([np.asarray(each)[row] for each in found]), want, atol=TOLERANCE)


def test_segments_reach_bert(tmp_path):
    model = torch_model("bert", "none")
    model.save_pretrained(tmp_path)
    config, params = load_pretrained(tmp_path, "none")
    tokens_BL, mask_BL = padded(config, "right")
    segments_BL = (np.arange(tokens_BL.shape[1])[None] > np.array([[7], [0], [3]])).astype(np.int32)
    got = applied(config, "none")({"params": params}, tokens_BL, mask_BL, segments_BL=segments_BL)
    want = theirs(model, "none", tokens_BL, mask_BL, token_type_ids=torch.from_numpy(segments_BL).long())
    np.testing.assert_allclose(np.asarray(got)[mask_BL], want[mask_BL], atol=TOLERANCE)
