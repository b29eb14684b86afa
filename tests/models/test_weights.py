"""Weights from and to folders, without torch: round trips, and one clear line for whatever is wrong."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import huggingface_hub.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.data import load_tokenizer
from llmjax.errors import UserError
from llmjax.files import SUMS
from llmjax.models.families import from_size
from llmjax.models.folders import resolve_folder
from llmjax.models.params import init_params, stack_layers
from llmjax.models.weights import load_pretrained, save_pretrained

CONFIG = from_size("tiny", vocab_size=50, n_positions=16, label_names=("bad", "good"), pad_token_id=0)
HEADS = ("lm", "classifier", "none")


@pytest.fixture(scope="module")
def params():
    return {head: drawn(CONFIG, head) for head in HEADS}


@pytest.fixture
def saved(params, tmp_path):
    """A folder with a classifier in it, as transformers would have written it: without checksums."""
    save_pretrained(tmp_path / "saved", CONFIG, params["classifier"], "classifier")
    (tmp_path / "saved" / SUMS).unlink()
    return tmp_path / "saved"


def drawn(config, head):
    """Random parameters without a compilation for each shape, as `init_params` would need."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(config, head, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jax.device_put(rng.standard_normal(leaf.shape).astype(leaf.dtype)), shapes)


def equal(one, other):
    def same(a, b):
        return a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b))

    return jax.tree.structure(one) == jax.tree.structure(other) and jax.tree.all(jax.tree.map(same, one, other))


def edit(folder, change):
    """Rewrites the folder's tensors by `change(dict)`."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    change(tensors)
    (folder / SUMS).unlink(missing_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def line_of(call):
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("head", HEADS)
def test_what_is_saved_is_loaded_bit_for_bit(head, params, tmp_path):
    save_pretrained(tmp_path / "m", CONFIG, params[head], head)
    config, loaded = load_pretrained(tmp_path / "m", head)
    assert config == CONFIG
    assert equal(loaded, params[head])
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors", SUMS]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    width=st.integers(1, 5),
    inner=st.none() | st.integers(1, 9),
    tied=st.booleans(),
    scan=st.booleans(),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    labels=st.integers(1, 4),
    head=st.sampled_from(HEADS),
)
def test_every_shape_survives_the_folder(tmp_path, layers, heads, width, inner, tied, scan, dtype, labels, head):
    config = dataclasses.replace(
        CONFIG, n_layer=layers, n_head=heads, n_embd=heads * width, n_inner=inner, tie_word_embeddings=tied,
        scan_layers=scan, param_dtype=dtype, label_names=tuple(f"c{i}" for i in range(labels)),
    )  # fmt: skip
    params = drawn(config, head)
    shutil.rmtree(tmp_path / "m", ignore_errors=True)
    save_pretrained(tmp_path / "m", config, params, head)
    loaded_config, loaded = load_pretrained(tmp_path / "m", head, scan_layers=scan, param_dtype=dtype)
    assert loaded_config == config
    assert equal(loaded, params)


def test_stored_types_are_cast_to_param_dtype(params, saved):
    edit(saved, lambda t: t.update({name: value.astype(np.float16) for name, value in t.items()}))
    _, half = load_pretrained(saved, "classifier", param_dtype="bfloat16")
    want = jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(jnp.bfloat16), params["classifier"])
    assert equal(half, want)


def test_scanned_parameters_are_saved_as_layers(params, saved):
    _, loaded = load_pretrained(saved, "classifier", scan_layers=True)
    assert equal(loaded, stack_layers(params["classifier"], CONFIG))


def test_names_without_prefix_and_old_buffers(params, saved):
    def change(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        for layer in range(CONFIG.layers):
            tensors[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.uint8))
            tensors[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)

    edit(saved, change)
    assert equal(load_pretrained(saved, "classifier")[1], params["classifier"])


def test_a_stored_tied_head_is_passed_over_only_if_it_is_tied(params, tmp_path):
    save_pretrained(tmp_path / "m", CONFIG, params["lm"], "lm")
    edit(tmp_path / "m", lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"]}))
    assert equal(load_pretrained(tmp_path / "m", "lm")[1], params["lm"])
    edit(tmp_path / "m", lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"] + 1}))
    assert "tie_word_embeddings" in line_of(lambda: load_pretrained(tmp_path / "m", "lm"))
    _, untied = load_pretrained(tmp_path / "m", "lm", tie_word_embeddings=False)
    np.testing.assert_array_equal(untied["lm_head"]["kernel"], params["lm"]["wte"]["embedding"].T + 1)


def test_the_other_heads_weights_are_left_out(params, saved):
    _, lm = load_pretrained(saved, "lm")
    assert equal(lm, {name: value for name, value in params["classifier"].items() if name != "score"})


def test_a_language_model_classifies_only_after_a_fresh_head_is_asked_for(params, tmp_path):
    save_pretrained(tmp_path / "m", CONFIG, params["lm"], "lm")
    line = line_of(lambda: load_pretrained(tmp_path / "m", "classifier"))
    assert "without a classification head" in line and "fine-tune" in line and "fresh_head_key" in line
    key = jax.random.key(5)
    labels = ("a", "b", "c")
    config, one = load_pretrained(tmp_path / "m", "classifier", fresh_head_key=key, label_names=labels)
    _, two = load_pretrained(tmp_path / "m", "classifier", fresh_head_key=key, label_names=labels)
    _, other = load_pretrained(tmp_path / "m", "classifier", fresh_head_key=jax.random.key(6), label_names=labels)
    assert config.label_names == labels and one["score"]["kernel"].shape == (32, 3)
    assert float(jnp.std(one["score"]["kernel"])) == pytest.approx(0.02, rel=0.3)
    assert equal(one, two) and not equal(one, other)


def test_a_fresh_head_replaces_only_one_of_another_size(params, saved):
    key = jax.random.key(5)
    _, kept = load_pretrained(saved, "classifier", fresh_head_key=key)
    assert equal(kept, params["classifier"])
    assert "score.weight is [32, 2], expected [32, 3]" in line_of(
        lambda: load_pretrained(saved, "classifier", label_names=("a", "b", "c"))
    )
    _, fresh = load_pretrained(saved, "classifier", fresh_head_key=key, label_names=("a", "b", "c"))
    assert fresh["score"]["kernel"].shape == (32, 3)


def test_missing_extra_and_misshapen_tensors_are_named_together(saved):
    def change(tensors):
        del tensors["transformer.h.1.mlp.c_fc.bias"]
        tensors["transformer.h.2.ln_1.weight"] = np.zeros(32, np.float32)
        tensors["transformer.wpe.weight"] = np.zeros((8, 32), np.float32)
        tensors["transformer.ln_f.bias"] = np.zeros(32, np.int8)

    edit(saved, change)
    line = line_of(lambda: load_pretrained(saved, "classifier"))
    assert "missing: h.1.mlp.c_fc.bias" in line
    assert "not expected: h.2.ln_1.weight" in line
    assert "wpe.weight is [8, 32], expected [16, 32]" in line
    assert "ln_f.bias (I8)" in line


def test_long_lists_of_tensors_are_cut(saved):
    edit(saved, lambda t: [t.pop(name) for name in list(t) if ".h." in name])
    line = line_of(lambda: load_pretrained(saved, "classifier"))
    assert "and 18 more" in line and len(line) < 500


def shard(folder, parts=3):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = {key: tensors[key] for key in sorted(tensors)[part::parts]}
        safetensors.numpy.save_file(mine, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_read(params, saved):
    shard(saved)
    assert equal(load_pretrained(saved, "classifier")[1], params["classifier"])


def test_a_missing_shard_is_named(saved):
    shard(saved)
    (saved / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors" in line_of(lambda: load_pretrained(saved, "classifier"))


@pytest.mark.parametrize(
    "index",
    ["{", "[]", "{}", *(f'{{"weight_map": {value}}}' for value in ("{}", "[]", '{"a": null}', '{"a": "../b"}', "NaN"))],
)
def test_a_broken_index_is_named(saved, index):
    shard(saved)
    (saved / "model.safetensors.index.json").write_text(index)
    assert "model.safetensors.index.json" in line_of(lambda: load_pretrained(saved, "classifier"))


def test_files_that_are_no_safetensors(saved):
    file = saved / "model.safetensors"
    whole = file.read_bytes()
    for content, says in [
        (whole[: len(whole) // 2], "not readable"),
        (b"", "not readable"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ]:
        file.write_bytes(content)
        line = line_of(lambda: load_pretrained(saved, "classifier"))
        assert says in line and str(file) in line


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"]
)
def test_other_formats_are_refused_with_the_way_to_convert(saved, name):
    (saved / "model.safetensors").rename(saved / name)
    line = line_of(lambda: load_pretrained(saved, "classifier"))
    assert name in line and "save_pretrained" in line and "python -c" in line


def test_folders_that_are_no_models(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in line_of(lambda: load_pretrained(tmp_path / "empty", "lm"))
    assert "It holds: saved/" in line_of(lambda: load_pretrained(saved.parent, "lm")).replace("empty/, ", "")
    assert "is a file" in line_of(lambda: load_pretrained(saved / "config.json", "lm"))
    (saved / "model.safetensors").unlink()
    assert "has no model.safetensors" in line_of(lambda: load_pretrained(saved, "lm"))
    (saved / "config.json").write_text("{")
    assert "is not JSON" in line_of(lambda: load_pretrained(saved, "lm"))
    (saved / "config.json").write_text("[]")
    assert "JSON object, not a list" in line_of(lambda: load_pretrained(saved, "lm"))
    (saved / "config.json").write_bytes(b"\xff")
    assert "is not JSON" in line_of(lambda: load_pretrained(saved, "lm"))


def test_a_path_that_is_not_there_names_the_nearest(saved, monkeypatch):
    assert f"Did you mean {str(saved)!r}?" in line_of(lambda: resolve_folder(saved.parent / "savd"))
    assert "There is no 'runs' in" in line_of(lambda: resolve_folder(saved.parent / "runs" / "sst2"))
    monkeypatch.chdir(saved.parent)
    assert "Did you mean 'saved'?" in line_of(lambda: resolve_folder("./savd"))
    (saved.parent / "runs" / "sst2").mkdir(parents=True)
    assert f"Did you mean {'runs/sst2'!r}?" in line_of(lambda: resolve_folder("runs/sst3"))


def test_a_runs_workdir_stands_for_its_best(saved, tmp_path, params):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text("{}")  # the run's own settings
    saved.rename(workdir / "best")
    assert equal(load_pretrained(workdir, "classifier")[1], params["classifier"])
    assert resolve_folder(workdir) == workdir / "best"


def raises(error):
    def download(*args, **kwargs):
        raise error

    return download


def hub_errors():
    response = SimpleNamespace(headers={}, request=None)  # of whichever HTTP library the hub's client uses
    errors = huggingface_hub.errors
    return [
        (errors.LocalEntryNotFoundError("no network"), "cannot be reached"),
        (errors.RepositoryNotFoundError("401", response=response), "neither a folder here nor a public model"),
        (errors.GatedRepoError("401", response=response), "gated"),
        (errors.HFValidationError("bad id"), "bad id"),
        (OSError("disk full"), "disk full"),
    ]


@pytest.mark.parametrize(("error", "says"), hub_errors(), ids=lambda value: type(value).__name__)
def test_hub_trouble_is_one_line(error, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raises(error))
    line = line_of(lambda: load_pretrained("my-modell", "lm"))
    assert says in line and "'my-modell'" in line
    if "gated" not in line:
        assert "Did you mean 'my-model'?" in line


def test_a_hub_model_is_fetched_without_what_is_not_needed(saved, monkeypatch, params):
    asked = {}

    def download(name, allow_patterns):
        asked.update({name: allow_patterns})
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    _, loaded = load_pretrained("someone/some-gpt2", "classifier")
    assert equal(loaded, params["classifier"])
    assert {"config.json", "model*.safetensors", "tokenizer.json"} <= set(asked["someone/some-gpt2"])
    assert not [pattern for pattern in asked["someone/some-gpt2"] if ".bin" in pattern]


def test_saving_replaces_a_saved_model_whole(params, saved):
    (saved / "tokenizer.json").write_text("{}")
    save_pretrained(saved, CONFIG, params["lm"], "lm")
    assert equal(load_pretrained(saved, "lm")[1], params["lm"])
    assert sorted(file.name for file in saved.iterdir()) == ["config.json", "model.safetensors", SUMS]
    assert [entry.name for entry in saved.parent.iterdir()] == ["saved"]  # nothing temporary is left


def test_saving_never_replaces_other_things(params, saved, tmp_path):
    (saved / "notes.txt").write_text("mine")
    assert "notes.txt" in line_of(lambda: save_pretrained(saved, CONFIG, params["lm"], "lm"))
    assert (saved / "notes.txt").read_text() == "mine"
    assert "is a file" in line_of(lambda: save_pretrained(saved / "notes.txt", CONFIG, params["lm"], "lm"))
    assert equal(load_pretrained(saved, "classifier")[1], params["classifier"])


def test_a_save_that_fails_leaves_the_old_model(params, saved, monkeypatch):
    monkeypatch.setattr(safetensors.numpy, "save_file", raises(OSError(28, "No space left on device")))
    assert "No space left" in line_of(lambda: save_pretrained(saved, CONFIG, params["lm"], "lm"))
    monkeypatch.undo()
    assert equal(load_pretrained(saved, "classifier")[1], params["classifier"])
    assert [entry.name for entry in saved.parent.iterdir()] == ["saved"]


def test_a_save_killed_between_its_renames_is_mended_by_the_next(params, saved):
    saved.rename(saved.with_name(".saved.old"))
    saved.with_name(".saved.new").mkdir()
    save_pretrained(saved, CONFIG, params["lm"], "lm")
    assert equal(load_pretrained(saved, "lm")[1], params["lm"])
    assert [entry.name for entry in saved.parent.iterdir()] == ["saved"]


def test_the_tokenizer_and_its_padding_token_are_saved(params, tmp_path):
    tokenizer = load_tokenizer("gpt2")
    config = dataclasses.replace(CONFIG, pad_token_id=None)
    save_pretrained(tmp_path / "m", config, params["classifier"], "classifier", tokenizer)
    again = load_tokenizer(str(tmp_path / "m"))
    assert again("I love this movie.")["input_ids"] == [40, 1842, 428, 3807, 13]
    assert load_pretrained(tmp_path / "m", "classifier")[0].pad_token_id == tokenizer.pad_token_id
    save_pretrained(tmp_path / "m", config, params["classifier"], "classifier")
    assert load_pretrained(tmp_path / "m", "classifier")[0].pad_token_id == config.eos_token_id
