"""Figures of a validation, by hand, and the jobs that calibrate and validate, in their smallest form."""

import json
import os
import subprocess
import sys

import pytest

from llmjax.cycles.validation import Case, OpCase, kendall, reason, summary, weighted_error, worst


def op(name, predicted, measured, role="MLP", spread=0.0):
    return OpCase("p", name, "loop", role, predicted, measured, spread, "compute", measured * 2, measured * 3)


def case(name, predicted, measured, ops=()):
    return Case(name, "decode", predicted, measured, measured, measured * 1.1, 0.9, measured * 2, measured / 2, ops)


def test_figures_by_hand():
    ops = (op("a", 2.0, 1.0), op("b", 3.0, 3.0, "softmax"), op("c", 4.5, 4.0))
    found = summary([case("x", 1.1, 1.0, ops), case("y", 2.0, 4.0, ops)])
    assert found["end_to_end"]["median"] == pytest.approx(0.3)
    assert found["end_to_end"]["max"] == pytest.approx(0.5)
    assert found["per_op"]["time_weighted"] == pytest.approx(1.5 / 8)
    assert found["by_role"]["softmax"]["mean"] == 0
    assert found["kendall_tau"]["median"] == 1.0
    assert found["baselines"]["roofline"]["median"] == pytest.approx(1.0)
    assert found["baselines"]["xla_cpu_model"]["median"] == pytest.approx(0.5)
    assert worst([case("x", 1, 1, ops)], 1)[0].name == "a"
    assert weighted_error(()) == 0.0


def test_ranks():
    assert kendall([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall([3, 2, 1], [10, 20, 30]) == -1.0
    assert kendall([1], [1]) == 1.0


def test_reasons():
    assert "its own runs differ by 90%" in reason(op("a", 1.2, 1.0, spread=0.9))
    assert "too slow by 2.00x" in reason(op("a", 2.0, 1.0))


def launch(repo, *args):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "100"}
    command = [sys.executable, "launch.py", *args]
    return subprocess.run(command, cwd=repo, capture_output=True, text=True, env=env, check=False)


def test_the_jobs(repo, tmp_path):
    done = launch(repo, "--config=configs/calibrate.py:tiny", f"--workdir={tmp_path / 'c'}")
    assert done.returncode == 0, done.stderr
    card = tmp_path / "c" / "card.json"
    assert json.loads(card.read_text())["schema"] == "llmjax.device/2"
    done = launch(repo, "--config=configs/validate.py:tiny", f"--config.card={card}", f"--workdir={tmp_path / 'v'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "v" / "validation.json").read_text())
    assert found["held_out"] and len(found["cases"]) == 2 and found["summary"]["ops"] > 20
    assert "end to end, median" in done.stdout
    arguments = ("--config=configs/cost.py:tiny", f"--config.card={card}", "--config.measure=True")
    done = launch(repo, *arguments, "--config.device.clock_hz=1e9", f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "w" / "cost.json").read_text())
    timed = [row for row in report["ops"] if "measured_seconds" in row]
    assert len(timed) > 20
    for row in timed:
        assert row["cycles"] == pytest.approx(row["seconds"] * 1e9)
        assert row["low"] <= row["seconds"] <= row["high"]
    assert report["time"]["measured"] > 0 and report["provenance"]["cycles"] == "modelled"
    assert (tmp_path / "w" / "trace.json").exists()
    done = launch(repo, "--config=configs/cost.py:tiny", "--config.card=nowhere.json", f"--workdir={tmp_path / 'x'}")
    assert done.returncode == 2 and "nowhere.json" in done.stderr and len(done.stderr.splitlines()) == 1
