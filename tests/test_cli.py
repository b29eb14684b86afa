"""The `llmjax` command, called as a program would be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmjax.cli import COMMANDS, main
from llmjax.report.html import plotly_js


@pytest.fixture
def hlo(repo: Path) -> str:
    return str(repo / "tests/testdata/hlo/tpu_block_bf16.hlo")


def test_cost_prints_the_report_and_json_alone_where_asked(hlo: str, tmp_path: Path, capsys) -> None:
    assert main(["cost", hlo, "--target", "tpu:v5e"]) == 0
    told = capsys.readouterr().out
    assert "7.02 MFLOP" in told and "predicted:" in told
    page = tmp_path / "cost.html"
    assert main(["cost", hlo, "--json", "--html", str(page)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["totals"]["flops"] > 7e6
    assert page.stat().st_size > 10_000 and str(page) in printed.err


def test_explain_says_what_bounds_an_op(hlo: str, capsys) -> None:
    assert main(["cost", hlo, "--json", "--target", "tpu:v5e"]) == 0
    name = json.loads(capsys.readouterr().out)["ops"][0]["name"]
    assert main(["explain", hlo, name, "--target", "tpu:v5e"]) == 0
    assert "It is bound" in capsys.readouterr().out
    assert main(["explain", hlo, name, "--target", "tpu:v5e", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["op"]["name"].split(" ")[0] == name


def test_diff_leaves_with_1_above_its_guard(hlo: str, tmp_path: Path, capsys) -> None:
    assert main(["diff", hlo, hlo, "--fail-above", "2%"]) == 0
    capsys.readouterr()
    less = tmp_path / "less.json"
    main(["cost", hlo, "--json"])
    found = json.loads(capsys.readouterr().out)
    found["totals"]["flops"] /= 2
    less.write_text(json.dumps(found))
    assert main(["diff", str(less), hlo, "--fail-above", "2%"]) == 1
    assert "more than --fail-above 2%: flops" in capsys.readouterr().err
    assert main(["diff", str(less), hlo, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cost", "nowhere.hlo"], "'nowhere.hlo' does not exist"),
        (["cost", "HLO", "--target", "tpu:v55"], "tpu:v55"),
        (["cost", "HLO", "--trips", "while.3"], "--trips: 'while.3' needs a whole number"),
        (["explain", "HLO", "nothing.7"], "'nothing.7'"),
        (["diff", "HLO", "HLO", "--fail-above", "many"], "--fail-above"),
    ],
)
def test_a_mistake_is_a_line_and_status_2(words: list[str], says: str, hlo: str, capsys) -> None:
    assert main([hlo if word == "HLO" else word for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and says in printed.err and printed.err.count("\n") == 1
    assert not printed.out


def test_a_missing_extra_is_named(hlo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    plotly_js.cache_clear()  # another test may have read it
    assert main(["cost", hlo, "--target", "tpu:v5e", "--html", str(tmp_path / "cost.html")]) == 2
    assert capsys.readouterr().err == "error: this needs plotly: pip install 'llmjax[report]'\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"example: llmjax {command} " in capsys.readouterr().out


def test_a_job_runs_from_anywhere_and_jax_is_not_needed_for_hlo(hlo: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmjax", "run", "configs/cost.py", f"--config.hlo={hlo}", "--workdir=out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/cost.json").exists()
