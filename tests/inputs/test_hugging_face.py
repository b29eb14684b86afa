"""Models of transformers by their configs alone, held against torch's own count of their products."""

import importlib.util
import json

import pytest

from llmjax.analyser import analyze
from llmjax.errors import UserError
from llmjax.inputs.function import Size, jitted, read_call
from llmjax.inputs.hugging_face import _config, _inputs, _model

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchax") is None, reason="the extra hf is not installed")

LAYERS = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
LAYERS |= {"vocab_size": 300}
SMALL = {
    "bert": LAYERS,
    "qwen3": {**LAYERS, "num_key_value_heads": 2, "head_dim": 16},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 300},
    "vit": {**LAYERS, "image_size": 32, "patch_size": 8},
}
SMALL["mixtral"] = {**SMALL["qwen3"], "num_local_experts": 4, "architectures": ["MixtralForCausalLM"]}


def written(folder, kind):
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **SMALL[kind]}))
    return f"hf:{folder}"


@pytest.mark.parametrize("kind", ["bert", "qwen3", "t5", "vit"])
def test_products_are_those_that_torch_counts(tmp_path, kind):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    word = written(tmp_path, kind)
    call = jitted(read_call(word, size=Size(2, 16)))
    report = analyze(call.function, *call.args)
    config = _config(str(tmp_path), word)
    model = _model(config, torch.float32, word)
    inputs = {
        name: torch.zeros(t.shape, dtype=t.dtype) for name, t in _inputs(model, 2, 16, torch.float32, word).items()
    }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        type(model)(config).eval()(**inputs)
    assert report.totals.matmul_flops == pytest.approx(counter.get_total_flops(), rel=0.03)
    assert report.cost.coverage == 1
    shares = {row.key: row.cost.matmul_flops / report.totals.matmul_flops for row in report.by("role")}
    assert shares["MLP"] > 0.25 and shares["attention projections"] > 0.2 and shares.get("other", 0) < 0.05
    assert {row.key for row in report.by("layer")} >= {0, 1}


def test_a_mixtures_experts_are_traced(tmp_path):
    call = jitted(read_call(written(tmp_path, "mixtral"), size=Size(1, 8, "bfloat16")))
    report = analyze(call.function, *call.args, target="cpu")
    assert report.name == "jit_MixtralForCausalLM"
    assert any(row.key == "experts" and row.cost.matmul_flops for row in report.by("role"))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hf:bret", "Did you mean 'bert'?"),
        ("hf:no/where", "does not exist"),
        ("hf:longformer", "cannot trace"),
    ],
)
def test_what_cannot_be_built_says_so(word, says):
    with pytest.raises(UserError, match=r"^hf:") as caught:
        call = jitted(read_call(word, size=Size(1, 16)))
        analyze(call.function, *call.args)
    assert says in str(caught.value)


def test_arguments_are_for_functions():
    with pytest.raises(UserError, match="takes --batch, --length and --dtype"):
        read_call("hf:bert", "f32[3]")
