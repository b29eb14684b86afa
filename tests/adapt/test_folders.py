import json
from pathlib import Path

import jax
import numpy as np
import pytest

from llmjax.adapt.folders import load_model, shapes_of
from llmjax.errors import UserError
from llmjax.models.params import init_params
from llmjax.models.weights import save_pretrained
from tests.adapt.models import FAMILIES, logits
from tests.adapt.saved import saved

METHODS = ("lora", "adalora", "adapters")


@pytest.mark.parametrize(
    ("family", "method"), [*(("gpt2", method) for method in METHODS), ("bert", "adapters"), ("llama", "adalora")]
)
def test_a_folder_gives_back_the_model_on_its_base(tmp_path: Path, family: str, method: str) -> None:
    config, whole = saved(tmp_path, family, method)
    loaded, params = load_model(tmp_path / "adapter", "classifier")
    assert loaded.label_names == config.label_names
    given = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    told = shapes_of(str(tmp_path / "adapter"), loaded, "classifier")
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), told) == given
    np.testing.assert_allclose(logits(config, params), logits(config, whole), atol=1e-5)
    assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 40_000


def test_a_language_models_adapter_leaves_the_head_of_a_classifier_to_be_drawn(tmp_path: Path) -> None:
    config, whole = saved(tmp_path, "llama", "lora", head="lm")
    _, params = load_model(tmp_path / "adapter", "lm")
    np.testing.assert_allclose(logits(config, params, "lm"), logits(config, whole, "lm"), atol=1e-5)
    fresh, params = load_model(
        tmp_path / "adapter", "classifier", fresh_head_key=jax.random.key(0), label_names=("a", "b", "c")
    )
    assert logits(fresh, params).shape == (8, 3)
    with pytest.raises(UserError, match="without a classification head"):
        load_model(tmp_path / "adapter", "classifier")


def change(folder: Path, **values) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_what_cannot_be_read_is_named_in_a_line(tmp_path: Path) -> None:
    saved(tmp_path / "small", "gpt2", "lora")
    adapter = tmp_path / "small/adapter"
    wide = FAMILIES["gpt2"].__class__(**{**vars(FAMILIES["gpt2"]), "n_embd": 32})
    save_pretrained(tmp_path / "wide", wide, init_params(wide, "classifier", jax.random.key(0)), "classifier")
    saved(tmp_path / "other", "bert", "lora")
    for base, says in (
        (
            tmp_path / "wide",
            r"h_0/attn/c_attn/lora_[ab] is made for \d+, and its base .*wide' has \d+: it is an adapter",
        ),
        (tmp_path / "other/base", "belongs to no weight of its base .*a 2-layer bert"),
        (tmp_path / "nowhere", "is an adapter, and its base is not to be had: .*no such folder"),
        (adapter, "names its own folder"),
        (None, "names no base_model_name_or_path"),
    ):
        change(adapter, base_model_name_or_path=base and str(base))
        with pytest.raises(UserError, match=says):
            load_model(adapter, "classifier")
    change(adapter, base_model_name_or_path=str(tmp_path / "small/base"))
    for value, says in (({"use_dora": True}, "use_dora=True is not computed"), ({"peft_type": "IA3"}, "'IA3' is not")):
        before = json.loads((adapter / "adapter_config.json").read_text())
        change(adapter, **value)
        with pytest.raises(UserError, match=says):
            load_model(adapter, "classifier")
        change(adapter, **{"use_dora": False, **before})
    change(adapter, r=0)
    with pytest.raises(UserError, match="r, init_r or lora_alpha is missing or no number"):
        load_model(adapter, "classifier")


def test_damaged_arrays_are_noticed(tmp_path: Path) -> None:
    saved(tmp_path, "gpt2", "lora")
    with (tmp_path / "adapter/adapter_model.safetensors").open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\1\2\3\4")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors missing or not as it was saved"):
        load_model(tmp_path / "adapter", "classifier")
