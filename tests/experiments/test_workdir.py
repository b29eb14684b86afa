import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments._workdir import RESULTS, claim, flat_settings, held, results, show
from llmjax.errors import UserError

HOLDER = """
import sys, time
from pathlib import Path
from experiments._workdir import held, show
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_in_a_folder_is_one_line(repo: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=repo, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run is at work there") as error, held(tmp_path):
            pass
        assert "\n" not in str(error.value)
        first.kill()
    for _ in range(2):  # the system let go of it, and so do we
        with held(tmp_path):
            pass


def test_a_stopped_run_keeps_its_settings_but_for_what_is_only_shown(tmp_path: Path) -> None:
    before = flat_settings({"train": {"rate": 0.1}, "examples": 5})
    claim(tmp_path, before)
    claim(tmp_path, before | {"train.rate": 0.2})  # nothing was trained yet
    (tmp_path / "checkpoints" / "last" / "3").mkdir(parents=True)
    claim(tmp_path, flat_settings({"train": {"rate": 0.2}, "examples": ("a text",)}))
    with pytest.raises(UserError, match=r"train\.rate=0\.2, now it is 0\.3"):
        claim(tmp_path, {"train.rate": 0.3})


def test_a_run_from_before_settings_could_be_open_goes_on(tmp_path: Path) -> None:
    old = {
        "data.source": "vader_movies",
        "data.train": "",
        "train.epochs": 6,
        "train.rate": 1e-3,
        "data.names": ["a", "b"],
    }
    (tmp_path / "checkpoints" / "last" / "3").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(old))
    new = old | {"data.source": "", "train.epochs": None, "chosen": {"train.epochs": 6}}
    claim(tmp_path, new)
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(UserError) as error:
        claim(
            tmp_path,
            new | {"chosen": {"train.epochs": 0}, "train.rate": 2e-3, "data.names": ["x"], "data.fingerprint": 1},
        )
    said = str(error.value)
    assert "train.epochs=6, now it is 0: use another --workdir, or go on with that run by" in said and "\n" not in said
    assert said.endswith("--config.train.epochs=6 --config.train.rate=0.001 --config.data.names=a,b")
    claim(tmp_path, old)  # which these are
    (tmp_path / RESULTS).write_text("{}")
    assert results(tmp_path, {"data": {"source": ""}, "train": {"epochs": None}}) == {}


def test_other_data_are_named_as_such(tmp_path: Path) -> None:
    claim(tmp_path, {"data.fingerprint": 1, "examples": ["a"]})
    (tmp_path / "checkpoints" / "last" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match="holds a run on other data than these"):
        claim(tmp_path, {"data.fingerprint": 2})


def test_damaged_results_are_one_line(tmp_path: Path) -> None:
    assert results(tmp_path, {}) is None
    (tmp_path / RESULTS).write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        results(tmp_path, {})


@pytest.mark.parametrize("found", [{}, {"test": None}, {"test": {"accuracy": 1}}, {"test": []}])
def test_results_that_no_run_wrote_so_are_one_line(found, tmp_path):
    from experiments.finetune import _print_results

    with pytest.raises(UserError, match=r"eval.json: is not as a run writes it .* remove it") as error:
        show(_print_results, found, tmp_path)
    assert "\n" not in str(error.value)
