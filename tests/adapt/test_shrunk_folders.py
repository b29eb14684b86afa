"""transformers loads a folder of a shrunk model and computes what ours does: needs the `reference` extra."""

import numpy as np
import pytest

from llmjax.adapt.structured import without_channels, without_heads
from llmjax.models.weights import save_pretrained
from tests.adapt.small import SIZES, logits, small, texts

torch = pytest.importorskip(
    "torch", reason="parity with torch needs the `reference` extra: pip install -e .[reference]"
)
transformers = pytest.importorskip("transformers")

LOADERS = {"tiny": "AutoModelForCausalLM", "tiny-bert": "AutoModelForMaskedLM", "tiny-llama": "AutoModelForCausalLM"}


def theirs(folder, size):
    model = getattr(transformers, LOADERS[size]).from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.from_numpy(texts()).long()).logits.numpy()


@pytest.mark.parametrize("size", SIZES)
def test_a_narrow_mlp(size, tmp_path):
    config, params = small(size)
    keep = np.arange(0, config.layer.inner, 2)
    narrow = without_channels(params, config, [keep] * config.layers)
    save_pretrained(tmp_path / "m", narrow.config, narrow.params, "lm")
    np.testing.assert_allclose(theirs(tmp_path / "m", size), logits(narrow.params, narrow.config), atol=1e-4)


def test_a_llama_of_fewer_heads(tmp_path):
    config, params = small("tiny-llama")
    less = without_heads(params, config, [np.arange(1)] * config.layers)
    save_pretrained(tmp_path / "m", less.config, less.params, "lm")
    np.testing.assert_allclose(theirs(tmp_path / "m", "tiny-llama"), logits(less.params, less.config), atol=1e-4)
