import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import finetune as finetune_config
from configs import quickstart, sst2
from experiments import _adapt, finetune
from llmjax.data import Dataset, Examples, load_tokenizer
from llmjax.errors import UserError
from llmjax.infer.calibration import Calibration, read_calibration, tempered
from llmjax.infer.classify import load_classifier

CONFIGS = {"finetune": finetune_config, "quickstart": quickstart, "sst2": sst2}


def tiny(**changes: object) -> ConfigDict:
    config = finetune_config.get_config("tiny")
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run of quickstart:tiny."""
    workdir = tmp_path_factory.mktemp("quickstart")
    finetune.run(quickstart.get_config("tiny"), str(workdir))
    return workdir


def test_workdir_holds_what_a_finished_run_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"best", "checkpoints", "metrics.jsonl", "eval.json", "config.json"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (finished / "best").iterdir()
    }
    results = json.loads((finished / "eval.json").read_text())
    assert results["label_names"] == ["negative", "positive"]
    for split in ("test", "dev"):
        assert results[split]["examples"] == np.sum(results[split]["confusion"]) == 12
        assert results[split]["accuracy_95"][0] <= results[split]["accuracy"] <= results[split]["accuracy_95"][1]
    assert [example["labelled"] for example in results["examples"]] == ["negative", "positive"]
    assert set(results["baseline"]) == {"test", "dev"} and 0 <= results["baseline"]["test"]["accuracy"] <= 1
    assert results["temperature"] == 1.0  # 12 texts are too few to fit one
    assert read_calibration(finished / "best").trained_U is not None


def test_a_finished_run_is_shown_again_and_not_made_again(finished: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    finetune.run(quickstart.get_config("tiny"), str(finished))
    out = capsys.readouterr().out
    assert (
        "this run is finished" in out
        and "test accuracy" in out
        and ", labelled negative" in out
        and "a linear classifier of the same tokens" in out
    )
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_end_of_a_run_names_only_jobs_that_exist(finished: Path, capsys: pytest.CaptureFixture, repo: Path) -> None:
    finetune.run(quickstart.get_config("tiny"), str(finished))
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line) for line in lines[lines.index("try next:") + 1 :] if line.startswith("  ")]
    assert len(commands) == 3
    for python, launch, config, *_ in commands:
        assert shutil.which(python) and Path(launch).resolve() == repo / "launch.py"
        assert Path(config.removeprefix("--config=")).is_file()


def test_end_of_a_run_names_the_cost_report(finished: Path, capsys: pytest.CaptureFixture) -> None:
    finetune.run(quickstart.get_config("tiny"), str(finished))
    page = finished / "cost" / "cost.html"
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"{page} (open it in a browser)")
    assert "2 layers of width 32, one text of" in page.read_text("utf-8")
    cost = json.loads((finished / "cost" / "cost.json").read_text())
    assert cost["totals"]["flops"] > 0 and not cost["lower_bound"]


def test_other_settings_in_the_same_folder_are_refused(finished: Path) -> None:
    config = quickstart.get_config("tiny")
    config.train.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"train\.optimizer\.learning_rate=.*now it is 0\.5: use another --workdir"):
        finetune.run(config, str(finished))


def test_best_folder_is_a_start_for_another_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tiny(**{"model.init": str(finished), "train.epochs": 1, "data.label_names": ("bad", "good")})
    finetune.run(config, str(tmp_path))
    stored = json.loads((tmp_path / "best" / "config.json").read_text())
    assert stored["id2label"] == {"0": "bad", "1": "good"} and stored["n_embd"] == 32
    with pytest.raises(UserError, match="fixes the shape"):
        finetune.run(tiny(**{"model.init": str(finished), "model.n_layer": 1}), str(tmp_path / "other"))


def test_a_stranger_file_of_three_classes_without_a_test_split(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [f"{name} thing number {i}\t{name}" for i in range(30) for name in ("red", "green", "blue")]
    file = tmp_path / "things.tsv"
    file.write_text("words\tcolour\n" + "\n".join(rows) + "\n")
    config = tiny(
        **{
            "data.train": str(file),
            "data.text_column": "words",
            "data.label_column": "colour",
            "data.label_names": (),
            "data.test_fraction": 0.0,
            "data.max_length": 3,
            "model.n_layer": 1,
            "model.n_embd": 32,
            "train.epochs": 12,
            "train.eval_every": 18,
            "train.optimizer.learning_rate": 1e-2,
            "examples": ("red thing",),
        }
    )
    finetune.run(config, str(tmp_path / "run"))
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert results["label_names"] == ["blue", "green", "red"] and "test" not in results
    assert results["dev"]["accuracy"] > 0.8 and results["examples"][0]["label"] == "red"
    assert f"dev accuracy {results['dev']['accuracy']:.4f}" in out and "texts were longer than 3 tokens" in out


def test_changed_data_under_a_stopped_run_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.tsv"
    rows = [f"text {i}\t{i % 2}" for i in range(40)]
    file.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    small = {"model.n_layer": 1, "model.n_embd": 16, "train.epochs": 1}
    config = tiny(**{"data.train": str(file), "data.label_names": (), **small})
    with monkeypatch.context() as patch:
        patch.setattr(_adapt, "save_pretrained", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune.run(config, str(tmp_path / "run"))
    file.write_text("text\tlabel\n" + "\n".join([*rows, "text 40\t0"]) + "\n")
    with pytest.raises(UserError, match="on other data than these"):
        finetune.run(config, str(tmp_path / "run"))


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_name_their_variants(name: str) -> None:
    for arg in ("", "tiny"):
        assert CONFIGS[name].get_config(arg).experiment == "finetune"
    with pytest.raises(UserError, match="Did you mean 'tiny'"):
        CONFIGS[name].get_config("tinny")


def test_tiny_reviews_are_balanced_and_unique() -> None:
    lines = Path(finetune_config.get_config("tiny").data.train).read_text("utf-8").splitlines()[1:]
    texts, labels = zip(*(line.split("\t") for line in lines), strict=True)
    assert len(set(texts)) == 120 and labels.count("0") == labels.count("1") == 60


def test_sst2_reads_the_two_files_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no train\.tsv"):
        sst2.get_config(str(tmp_path))
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n")
    data = sst2.get_config(str(tmp_path)).data
    assert (data.source, data.train, data.text_column) == ("files", str(tmp_path / "train.tsv"), "text")
    assert sst2.get_config().data.source == "hub:stanfordnlp/sst2"


def test_turning_words_are_the_tokens_that_stand_inside_texts(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("gpt2-words")
    tokens = finetune._turning_tokens(("but", "yet"), tokenizer)
    assert tokens == tuple(
        tokenizer.encode("Fine but not good, yet", add_special_tokens=False)[place] for place in (1, -1)
    )
    with pytest.raises(UserError, match=r"train\.turning_words: 'but,yet' is 3 tokens"):
        finetune.run(tiny(**{"train.turning_words": ("but,yet",)}), str(tmp_path))


def test_own_texts_in_chinese_get_a_tokenizer_and_a_run_says_what_it_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [f"{place}很{word}。\t{label}" for place in ("房间", "早餐", "位置", "服务") * 30
            for word, label in (("好", 1), ("差", 0))]  # fmt: skip
    (tmp_path / "hotel.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n", "utf-8")
    config = finetune_config.get_config()
    config.update_from_flattened_dict({
        "data.source": "files", "data.train": str(tmp_path / "hotel.tsv"), "data.test_fraction": 0.3,
        "data.dev_fraction": 0.3, "train.distill_steps": 40, "train.eval_every": 20, "train.batch_size": 16,
        "train.max_buckets": 1, "model.n_embd": 16, "model.n_layer": 1,
    })  # fmt: skip
    finetune.run(config, str(tmp_path / "run"))
    out = capsys.readouterr().out
    assert "tokenizer: made of the training texts" in out and "--config.data.label_names=NAME0,NAME1" in out
    assert "chosen for fresh weights: data.max_length=8, " in out and "train.optimizer.learning_rate=0.003" in out
    results = json.loads((tmp_path / "run" / "eval.json").read_text("utf-8"))
    assert results["temperature"] != 1.0  # 40 steps teach nothing; what they give is calibrated all the same
    classifier = load_classifier(tmp_path / "run")
    assert classifier.config.eos_token_id == classifier.tokenizer.eos_token_id < classifier.config.vocab_size
    assert classifier.config.bos_token_id is None  # as the tokenizer has none
    good, strange, blank = classifier.classify(["早餐很好", "zxq", ""])
    assert good.known and not strange.known and not blank.known
    probs_NC = np.array([list(good.scores.values())])
    assert classifier.calibration.temperature == results["temperature"]
    bare = dataclasses.replace(classifier, calibration=Calibration())
    np.testing.assert_allclose(
        tempered(np.array([list(bare.classify(["早餐很好"])[0].scores.values())]), results["temperature"]), probs_NC,
        atol=1e-5,
    )  # fmt: skip


def test_fresh_embeddings_have_the_spread_that_was_asked_for() -> None:
    config = finetune_config.get_config("tiny")
    config.model.embedding_std, config.model.position_std = 0.3, 0.5
    tokenizer = load_tokenizer("gpt2-words")
    examples = Examples(["good", "bad"], np.array([1, 0], np.int32))
    dataset = Dataset(examples, examples, examples, ("negative", "positive"))
    model, params = finetune._model(config.to_dict()["model"], 0, "", dataset, (tokenizer, 24))
    assert model.n_positions == 24
    spreads = {name: float(np.std(params[name]["embedding"])) for name in ("wte", "wpe")}
    assert spreads == pytest.approx({"wte": 0.3, "wpe": 0.5}, rel=0.05)
