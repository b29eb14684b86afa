"""Models that are not what was saved, or hold no numbers: refused wherever they are used, and saved whole or not."""

import dataclasses
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from llmjax.data.tokenizer import load_tokenizer
from llmjax.errors import UserError
from llmjax.files import SUMS
from llmjax.infer.classify import Classifier
from llmjax.infer.generate import Generator, load_generator
from llmjax.infer.perplexity import perplexity
from llmjax.models.families import from_size
from llmjax.models.params import Params, init_params, prepare
from llmjax.models.weights import load_pretrained, save_pretrained

TOKENIZER = load_tokenizer("gpt2")
CONFIG = from_size("tiny", vocab_size=len(TOKENIZER), n_layer=1, label_names=("no", "yes"))


def broken(head: Any, value: float) -> Params:
    params = init_params(CONFIG, head, jax.random.key(0))
    return params | {"ln_f": {"scale": params["ln_f"]["scale"] * value, "bias": params["ln_f"]["bias"]}}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    classifier = Classifier.from_params(CONFIG, broken("classifier", value), TOKENIZER)
    with pytest.raises(UserError, match="the class probabilities are not finite numbers: the model's weights"):
        classifier.classify(["a text"])
    params = broken("lm", value)
    generator = Generator.from_params(CONFIG, params, TOKENIZER)
    with pytest.raises(UserError, match="the logits are not finite numbers"):
        generator.generate(["a text"], 3)
    with pytest.raises(UserError, match="the logits are not finite numbers"):
        list(generator.stream("a text", 3))
    with pytest.raises(UserError, match="the log-likelihoods are not finite numbers"):
        perplexity(prepare(params, CONFIG, "float32"), CONFIG, "float32", [1, 2, 3, 4], 4, 4, 1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_pretrained(tmp_path / "m", CONFIG, init_params(CONFIG, "classifier", jax.random.key(0)), "classifier")
    return tmp_path / "m"


def test_damaged_weights_are_refused_and_a_changed_config_is_not(saved: Path) -> None:
    config = (saved / "config.json").read_text()
    (saved / "config.json").write_text(config.replace('"yes"', '"YES"'))
    assert load_pretrained(saved, "classifier")[0].label_names == ("no", "YES")
    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors missing or not as it was saved"):
        load_pretrained(saved, "classifier")
    (saved / SUMS).unlink()  # a folder without sums, as others write them
    load_pretrained(saved, "classifier")


def test_sums_are_read_by_sha256sum(saved: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=saved, capture_output=True, text=True, check=True)
    assert done.stdout == "model.safetensors: OK\n"


def test_all_files_of_a_saved_model_have_the_same_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_pretrained(tmp_path / "m", CONFIG, init_params(CONFIG, "lm", jax.random.key(0)), "lm", TOKENIZER)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "m").iterdir()} == {0o640}


def test_a_full_disk_is_one_line_and_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    other = dataclasses.replace(CONFIG, label_names=("a", "b"))
    with pytest.raises(UserError, match=r"cannot save the model there.*No space left on device"):
        save_pretrained(saved, other, init_params(other, "classifier", jax.random.key(1)), "classifier")
    assert load_pretrained(saved, "classifier")[0].label_names == ("no", "yes")
    assert [path.name for path in saved.parent.iterdir()] == ["m"]
    assert jnp.isfinite(load_pretrained(saved, "classifier")[1]["ln_f"]["scale"]).all()


def test_damaged_weights_are_refused_by_generation_too(tmp_path: Path) -> None:
    save_pretrained(tmp_path / "m", CONFIG, init_params(CONFIG, "lm", jax.random.key(0)), "lm", TOKENIZER)
    load_generator(tmp_path / "m")
    content = bytearray((tmp_path / "m" / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "m" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors missing or not as it was saved"):
        load_generator(tmp_path / "m")


def test_weights_that_do_not_fit_in_memory_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmjax.models.weights.available", lambda: 2**10)
    with pytest.raises(UserError, match=r"not enough memory: .* parameters .*; take a smaller model"):
        load_pretrained(saved, "classifier")
    monkeypatch.setattr("llmjax.models.params.available", lambda: 2**10)
    with pytest.raises(UserError, match=r"not enough memory: .* parameters"):
        init_params(CONFIG, "lm", jax.random.key(0))
    jax.eval_shape(lambda: init_params(CONFIG, "lm", jax.random.key(0)))  # shapes take none
