"""Adapters' folders both ways with peft on torch: needs the `reference` extra."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llmjax.adapt.folders import load_model
from llmjax.models.folders import read_config
from llmjax.models.params import Head
from llmjax.models.weights import save_pretrained
from tests.adapt.models import FAMILIES, batch, drawn, logits
from tests.adapt.saved import saved

torch = pytest.importorskip("torch", reason="parity with peft needs the `reference` extra: pip install -e .[reference]")
peft = pytest.importorskip("peft", reason="parity with peft needs the `reference` extra: pip install -e .[reference]")
transformers = pytest.importorskip("transformers")

# Of peft's own calls to transformers, and of its advice on AdaLoRA's settings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # Its reader of LoRA's rank patterns is shown AdaLoRA's, which its own folders have too.
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning"),
]


def theirs(model, head: Head):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(np.array(batch().tokens_BL)).long()).logits.numpy()


def torch_base(folder: Path, head: Head):
    kinds = {"classifier": "AutoModelForSequenceClassification", "lm": "AutoModelForCausalLM"}
    return getattr(transformers, kinds[head]).from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("family", "head", "method"),
    [
        ("gpt2", "classifier", "lora"),
        ("gpt2", "classifier", "adalora"),
        ("bert", "classifier", "lora"),
        ("llama", "lm", "lora"),
        ("llama", "lm", "adalora"),
    ],
)
def test_peft_computes_what_we_do_of_our_folder(tmp_path: Path, family: str, head: Head, method: str) -> None:
    config, whole = saved(tmp_path, family, method, head, **({"rank_stabilised": True} if method == "lora" else {}))
    model = peft.PeftModel.from_pretrained(torch_base(tmp_path / "base", head), str(tmp_path / "adapter"))
    np.testing.assert_allclose(theirs(model, head), logits(config, whole, head), atol=1e-5)


@pytest.mark.parametrize(
    ("family", "head", "method"),
    [
        ("gpt2", "classifier", "lora"),
        ("gpt2", "classifier", "adalora"),
        ("bert", "classifier", "lora"),
        ("llama", "lm", "lora"),
        ("llama", "lm", "adalora"),
    ],
)
def test_we_compute_what_peft_does_of_its_folder(tmp_path: Path, family: str, head: Head, method: str) -> None:
    config = FAMILIES[family]
    save_pretrained(tmp_path / "base", config, drawn(family, head), head)
    targets = {"gpt2": ["c_attn", "c_proj"], "bert": ["query", "dense"], "llama": "all-linear"}[family]
    task = {"classifier": "SEQ_CLS", "lm": "CAUSAL_LM"}[head]
    common = {"target_modules": targets, "task_type": task, "fan_in_fan_out": family == "gpt2"}
    if method == "lora":
        some = {"gpt2": "c_attn", "bert": "query", "llama": "q_proj"}[family]
        patterns = {"rank_pattern": {some: 3}, "alpha_pattern": {some: 7}}
        made = peft.LoraConfig(r=2, lora_alpha=5, **patterns, **common)
    else:
        made = peft.AdaLoraConfig(init_r=3, target_r=2, lora_alpha=5, total_step=9, tinit=1, tfinal=2, **common)
    model = peft.get_peft_model(torch_base(tmp_path / "base", head), made)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "ranknum" not in name:
                # Drawn whole, so that the seed fixes them; small, so that float32's rounding is far below 1e-5.
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(str(tmp_path / "adapter"))
    expected = theirs(model, head)
    loaded, params = load_model(tmp_path / "adapter", head)
    np.testing.assert_allclose(logits(loaded, params, head), expected, atol=1e-5)
    assert loaded.family == family and read_config(tmp_path / "adapter").family == family


def test_pruned_triplets_are_left_out_of_the_file(tmp_path: Path) -> None:
    saved(tmp_path, "gpt2", "adalora")
    tensors = load_file(tmp_path / "adapter/adapter_model.safetensors")
    lambdas = [array for name, array in tensors.items() if name.endswith("lora_E")]
    assert sum(len(array) for array in lambdas) == 2 * 8 and all((array != 0).all() for array in lambdas)
