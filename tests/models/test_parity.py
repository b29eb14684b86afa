"""Live parity with transformers' torch GPT-2 on random weights: needs the `reference` extra (torch)."""

import dataclasses

import jax
import numpy as np
import pytest

from llmjax.models.families import from_size, make_model
from llmjax.models.gpt2 import SIZES, GPT2Config
from llmjax.models.params import init_params
from llmjax.models.weights import load_pretrained, save_pretrained

torch = pytest.importorskip(
    "torch", reason="parity with torch needs the `reference` extra: pip install -e .[reference]"
)
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
LABELS = ("bad", "so-so", "good")
PAD = 99
# The widths and heads of every size, with fewer layers, words and positions so that the default run stays short.
CUT = {"tiny": {}, "small": {}, "gpt2": {"n_layer": 2}, "gpt2-medium": {"n_layer": 1}}
CUT |= {"gpt2-large": {"n_layer": 1}, "gpt2-xl": {"n_layer": 1}}
LENGTHS = (21, 1, 8)


def torch_model(config: GPT2Config, head: str, attention: str = "eager"):
    """A torch model with every parameter, biases and norms too, drawn at random."""
    hf_config = transformers.GPT2Config(**config.to_hf(head), attn_implementation=attention)
    cls = transformers.GPT2LMHeadModel if head == "lm" else transformers.GPT2ForSequenceClassification
    model = cls(hf_config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            scale = 0.1 if parameter.ndim == 1 else 0.5 * parameter.shape[0 if "h." in name else -1] ** -0.5
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model


def padded(config: GPT2Config, side: str, lengths: tuple[int, ...] = LENGTHS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    longest = max(lengths)
    tokens_BL = rng.integers(0, PAD, (len(lengths), longest), dtype=np.int32)
    mask_BL = np.arange(longest) < np.array(lengths)[:, None]
    mask_BL = mask_BL[:, ::-1] if side == "left" else mask_BL
    return np.where(mask_BL, tokens_BL, config.pad_token_id).astype(np.int32), mask_BL


def worst_difference(config: GPT2Config, head: str, folder, lengths=LENGTHS, attention: str = "eager") -> float:
    """Largest logit difference at real tokens, over both padding sides, of a model that transformers saved."""
    reference = torch_model(config, head, attention)
    reference.save_pretrained(folder)
    loaded, params = load_pretrained(folder, head)
    shape = dataclasses.replace(config, pad_token_id=loaded.pad_token_id)
    assert loaded == shape
    apply = jax.jit(make_model(loaded, head).apply)
    worst = 0.0
    for side in ("right", "left"):
        tokens_BL, mask_BL = padded(config, side, lengths)
        got = np.asarray(apply({"params": params}, tokens_BL, mask_BL))
        with torch.no_grad():
            want = reference(torch.from_numpy(tokens_BL).long(), attention_mask=torch.from_numpy(mask_BL.copy()).long())
        difference = np.abs(got - want.logits.numpy())
        worst = max(worst, float((difference[mask_BL] if head == "lm" else difference).max()))
        assert np.abs(got).max() > 0.1  # logits that are all near zero would agree whatever the code does
    return worst


# distilgpt2 has the width and heads of gpt2; a classifier's head stands on the same layers.
WIDTHS = [(size, "lm") for size in SIZES if size != "distilgpt2"] + [("tiny", "classifier"), ("gpt2", "classifier")]


@pytest.mark.parametrize(("size", "head"), WIDTHS)
def test_every_width_agrees_with_torch(size, head, tmp_path):
    config = from_size(size, vocab_size=100, pad_token_id=PAD, label_names=LABELS, bos_token_id=0, eos_token_id=0)
    config = dataclasses.replace(config, **{"n_positions": 32, **CUT[size]})
    assert worst_difference(config, head, tmp_path) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("head", ["lm", "classifier"])
@pytest.mark.parametrize("size", SIZES)
def test_every_whole_size_agrees_with_torch(size, head, tmp_path):
    config = from_size(size, pad_token_id=50256, label_names=LABELS)
    lengths = (config.context, 1, config.context // 3)
    worst = worst_difference(config, head, tmp_path, lengths)
    print(f"{size} {head}: max abs logit difference {worst:.2e}")
    assert worst <= TOLERANCE


ACTIVATIONS = ("gelu_pytorch_tanh", "gelu_fast", "gelu", "quick_gelu", "relu", "silu", "swish", "tanh")
VARIATIONS = [{"activation_function": name} for name in ACTIVATIONS] + [
    {"n_inner": 50},
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True},
    {"reorder_and_upcast_attn": True},
    {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    {"layer_norm_epsilon": 0.1},
    {"tie_word_embeddings": False},
    {"n_layer": 1, "n_head": 1},
]


@pytest.mark.parametrize("fields", VARIATIONS, ids=lambda fields: ",".join(f"{k}={v}" for k, v in fields.items()))
def test_every_config_field_agrees_with_torch(fields, tmp_path):
    config = from_size("tiny", vocab_size=100, pad_token_id=PAD, bos_token_id=0, eos_token_id=0, n_positions=32)
    layers = 2 if "scale_attn_by_inverse_layer_idx" in fields else 1
    config = dataclasses.replace(config, **{"n_layer": layers, **fields})
    assert worst_difference(config, "lm", tmp_path) <= TOLERANCE


def test_torchs_default_attention_agrees_too(tmp_path):
    config = from_size("small", vocab_size=100, pad_token_id=PAD, bos_token_id=0, eos_token_id=0)
    assert worst_difference(config, "classifier", tmp_path, attention="sdpa") <= TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_files_are_read_exactly(dtype, tmp_path):
    config = from_size("tiny", vocab_size=100, pad_token_id=PAD, bos_token_id=0, eos_token_id=0)
    reference = torch_model(config, "lm").to(getattr(torch, dtype))
    reference.save_pretrained(tmp_path)
    _, params = load_pretrained(tmp_path, "lm")
    kernel = params["h_1"]["mlp"]["c_fc"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, reference.transformer.h[1].mlp.c_fc.weight.detach().float().numpy())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", ["lm", "classifier"])
def test_transformers_loads_what_we_save_with_nothing_missing(head, tied, tmp_path):
    config = from_size("tiny", vocab_size=100, label_names=LABELS, tie_word_embeddings=tied, pad_token_id=PAD)
    config = dataclasses.replace(config, bos_token_id=0, eos_token_id=0)
    params = init_params(config, head, jax.random.key(0))
    save_pretrained(tmp_path / "saved", config, params, head)
    auto = {"lm": transformers.AutoModelForCausalLM, "classifier": transformers.AutoModelForSequenceClassification}[
        head
    ]
    model, info = auto.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert {name: list(found) for name, found in info.items() if found} == {}
    assert tuple(model.config.id2label.values()) == LABELS
    apply = jax.jit(make_model(config, head).apply)
    for side in ("right", "left"):
        tokens_BL, mask_BL = padded(config, side)
        got = np.asarray(apply({"params": params}, tokens_BL, mask_BL))
        with torch.no_grad():
            want = model(torch.from_numpy(tokens_BL).long(), attention_mask=torch.from_numpy(mask_BL.copy()).long())
        difference = np.abs(got - want.logits.numpy())
        assert (difference[mask_BL] if head == "lm" else difference).max() <= TOLERANCE


def test_shards_and_unprefixed_names_are_read(tmp_path):
    config = from_size("tiny", vocab_size=100, pad_token_id=PAD, bos_token_id=0, eos_token_id=0)
    reference = torch_model(config, "lm")
    reference.save_pretrained(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    reference.transformer.save_pretrained(tmp_path / "bare")  # names without `transformer.`, as in openai's gpt2
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    _, whole = load_pretrained(tmp_path / "whole", "lm")
    for other in ("sharded", "bare"):
        _, params = load_pretrained(tmp_path / other, "lm")
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), whole, params)), other
