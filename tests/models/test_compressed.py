"""Folders of 4-bit groups: the layout of compressed-tensors, there and back, and what is refused."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from llmjax.adapt.quantise import Grid, dequantised, round_weights
from llmjax.errors import UserError
from llmjax.kernels.formats import quantise_groups
from llmjax.models import compressed
from llmjax.models.families import make_model
from llmjax.models.weights import load_pretrained, map_pretrained, save_pretrained
from tests.adapt.small import logits, small, texts


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    config, params = small("tiny-llama")
    params = round_weights(params, config, Grid(4, 16))
    folder = tmp_path_factory.mktemp("packed") / "m"
    save_pretrained(folder, config, params, "lm")
    return folder, config, params


def test_groups_come_back_as_they_were(saved):
    folder, config, params = saved
    read, packed = map_pretrained(folder, "lm", packed=True)
    jax.tree.map(np.testing.assert_array_equal, packed, params)
    np.testing.assert_array_equal(logits(load_pretrained(folder, "lm")[1], read), logits(dequantised(params), config))


def test_numbers_lie_where_the_format_has_them(saved):
    """Each by its place: output 9, input 21 is in word 2, bits 20 to 23; its zero point in word 1, bits 4 to 7."""
    folder, _, params = saved
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.gate_proj"
    parts = {part: tensors[f"{name}.weight_{part}"] for part in ("packed", "scale", "zero_point", "shape")}
    assert parts["shape"].tolist() == [64, 32] and f"{name}.weight" not in tensors
    stored = (int(parts["packed"][9, 2]) >> 20) & 15
    zero = (int(parts["zero_point"][1, 1]) >> 4) & 15
    value = (stored - zero) * float(parts["scale"][9, 1])
    kernel = dequantised(params)["layers_1"]["mlp"]["gate_proj"]["kernel"]
    assert value == pytest.approx(float(kernel[21, 9]), rel=1e-6)
    about = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert about["config_groups"]["group_0"]["weights"]["group_size"] == 16 and about["ignore"] == ["lm_head"]


def test_what_the_format_cannot_say_is_refused(tmp_path):
    _, params = small("tiny-llama")
    kernel = params["layers_0"]["mlp"]["up_proj"]["kernel"]
    with pytest.raises(UserError, match="minima that are no whole number of steps"):
        compressed.tensors_of("m.weight", quantise_groups(kernel.T))
    config, params = small("tiny")
    with pytest.raises(UserError, match="a gpt2 in 4-bit groups cannot be saved"):
        save_pretrained(tmp_path / "m", config, round_weights(params, config, Grid(4, 16)), "lm")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "int-quantized"}, "quantization_config.format='int-quantized' is not supported"),
        ({"config_groups": {"a": {"weights": {"num_bits": 8}}}}, "config_groups.a is not supported: only weights of 4"),
        ({"config_groups": []}, "is not supported"),
    ],
)
def test_other_quantisations_are_refused_by_name(saved, change, says):
    about = json.loads((saved[0] / "config.json").read_text())
    about["quantization_config"] |= change
    with pytest.raises(UserError, match=says):
        compressed.without_quantization(about, "config.json")


@pytest.mark.parametrize("size", ["tiny-llama", "tiny-bert"])
def test_torch_reads_the_same_model(size, tmp_path):
    """compressed-tensors 0.15 does; 0.20.1 cannot load zero points (it leaves them unpacked when it shapes a model)."""
    pytest.importorskip("compressed_tensors")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config, params = small(size)
    params = round_weights(params, config, Grid(4, 16))
    save_pretrained(tmp_path / "m", config, params, "lm")
    kind = "AutoModelForCausalLM" if size == "tiny-llama" else "AutoModelForMaskedLM"
    model = getattr(transformers, kind).from_pretrained(str(tmp_path / "m")).eval()
    with torch.no_grad():
        theirs = model(torch.tensor(texts()).long()).logits.numpy()
    np.testing.assert_allclose(theirs, make_model(config, "lm").apply({"params": params}, texts()), atol=1e-5)
