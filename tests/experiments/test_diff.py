"""The diff job through launch.py: its tiny form, its guard, its mistakes."""

import copy
import json
import os
import subprocess
import sys

import pytest

from llmjax.errors import UserError
from tests.report.costs import BLOCK, HLO, cost_of, text_of


def launch(repo, *args, columns="80"):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": columns}
    command = [sys.executable, "launch.py", *args]
    return subprocess.run(command, cwd=repo, capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_tiny_job(repo, tmp_path, columns):
    done = launch(repo, "--config=configs/diff.py:tiny", f"--workdir={tmp_path}", columns=columns)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.replace(str(tmp_path), "").splitlines())) <= int(columns)
    assert "in all" in done.stdout and "by role" in done.stdout and "were renamed" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["diff.html", "diff.json", "diff.md"]
    totals = json.loads((tmp_path / "diff.json").read_text())["totals"]
    assert totals["flops"]["after"] == cost_of(text_of())["totals"]["flops"]


def test_the_guard(repo, tmp_path):
    """A cost.json that grew fails; the folder it lies in and the HLO it is from are as good as it."""
    cost = cost_of(text_of())
    cost["totals"]["bytes_read"] *= 2
    (tmp_path / "cost.json").write_text(json.dumps(cost))
    sides = [f"--config.before={HLO / BLOCK}", f"--config.after={tmp_path}"]
    done = launch(repo, "--config=configs/diff.py", *sides, "--config.fail_above=2%", f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 1
    assert done.stderr.startswith("fail_above=2%: bytes +") and len(done.stderr.splitlines()) == 1
    assert (tmp_path / "w" / "diff.json").exists()
    done = launch(repo, "--config=configs/diff.py", *sides, "--config.fail_above=200%", f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 0 and "within fail_above=200%: FLOPs, bytes" in done.stdout


@pytest.fixture
def job(tmp_path):
    from configs import diff as config
    from experiments import diff

    def run(**settings):
        c = config.get_config("tiny")
        for name, value in settings.items():
            c[name] = value
        diff.run(c, str(tmp_path / "out"))

    return run


def test_mistakes(job, tmp_path):
    (tmp_path / "other.json").write_text('{"schema": "x"}')
    (tmp_path / "torn.json").write_text('{"schema": ')
    for settings, said in (
        ({"before": ""}, "--config.before is empty"),
        ({"after": str(tmp_path)}, "is a folder without a cost.json"),
        ({"after": str(tmp_path / "other.json")}, "is no cost.json of the schema"),
        ({"after": str(tmp_path / "torn.json")}, "torn.json' is not JSON: Expecting value"),
        ({"after": str(tmp_path / "nothing")}, "cannot be read"),
        ({"fail_above": "2"}, "--config.fail_above='2' must be a percentage"),
        ({"top": -1}, "top=-1"),
    ):
        with pytest.raises(UserError) as error:
            job(**settings)
        assert said in str(error.value)


def test_a_damaged_cost_json_is_refused_by_what_is_wrong_in_it(repo, tmp_path):
    from llmjax.read_cost import read_cost
    from llmjax.report.diff import diff

    hlo = repo / "tests" / "testdata" / "hlo" / "cpu_0.12.0.1_block_f32.hlo"
    whole = read_cost(str(hlo), "--config.before")
    whole["ops"], whole["by_role"] = whole["ops"][:3], whole["by_role"][:2]
    file = tmp_path / "cost.json"
    refused = 0
    paths = [(key,) for key in whole] + [(part, 0, key) for part in ("ops", "by_role") for key in whole[part][0]]
    for path in [*paths, *(("totals", key) for key in whole["totals"])]:
        for value in (None, "x", -1, [], {}, [None], True, "\udc80"):
            damaged = copy.deepcopy(whole)
            at = damaged
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            file.write_text(json.dumps(damaged))
            try:
                diff(whole, read_cost(str(file), "--config.after"))  # what is not compared may be anything
            except UserError as error:
                refused += 1
                assert str(path[-1]) in str(error) and "\n" not in str(error)
    assert refused > 100
