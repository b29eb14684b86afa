"""The `llmjax` command, called as a program would be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmjax.cli import COMMANDS, JOBS, main
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
    assert main(["diff", hlo, hlo, "--target", "tpu:v5e", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["cycles"]["before"] > 0
    assert main(["diff", str(less), hlo, "--target", "tpu:v5e"]) == 2
    assert "was counted before" in capsys.readouterr().err


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


def test_without_a_word_it_lists_the_commands(capsys) -> None:
    assert main([]) == 2
    said = capsys.readouterr().err
    assert all(command in said for command in (*COMMANDS, *JOBS))


@pytest.mark.parametrize("command", [*COMMANDS, *JOBS])
def test_help_has_an_example(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"example:\n  llmjax {command} " in capsys.readouterr().out


def test_a_job_runs_from_anywhere_and_jax_is_not_needed_for_hlo(hlo: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmjax", "run", "configs/cost.py", f"--config.hlo={hlo}", "--workdir=out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/cost.json").exists()


def test_a_function_is_counted_compared_and_measured(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text("import jax.numpy as jnp\n\n\ndef step(x, w):\n    return jnp.tanh(x @ w).sum(0)\n")
    shapes = ["--args", "f32[16,32], f32[32,32]"]
    assert main(["cost", "my.py:step", *shapes, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["matmul_flops"] == 2 * 16 * 32 * 32
    assert main(["measure", "my.py:step", *shapes, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["time"]["measured"] > 0
    assert main(["compare", "my.py:step", *shapes, "--targets", "cpu", "--json", "--workdir", "w"]) == 0
    assert json.loads(capsys.readouterr().out)["program"] == "my.py:step(f32[16,32], f32[32,32])"
    assert main(["diff", "my.py:step", "my.py:step", *shapes, "--fail-above", "2%", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["flops"]["change"] == 0
    assert main(["cost", "my.py:step", "--args", "f32[16,32], f32[3,3]"]) == 2
    assert "my.py:5 in step: return jnp.tanh(x @ w).sum(0)" in capsys.readouterr().err


def test_a_folder_of_modules_is_a_table_and_one_is_chosen(tmp_path: Path, hlo: str, capsys) -> None:
    text = Path(hlo).read_text()
    for number, name in enumerate(("jit_a", "jit_b", "jit_a")):
        named = "HloModule " + name + text[text.index(",") :]
        (tmp_path / f"module_{number}.{name}.after_optimizations.txt").write_text(named)
    assert main(["cost", str(tmp_path), "--target", "tpu:v5e"]) == 0
    told = capsys.readouterr().out
    assert "jit_a x2" in told and "predicted" in told
    assert main(["cost", str(tmp_path), "--only", "jit_b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["module"] == "jit_b"
    assert main(["explain", str(tmp_path), "MLP"]) == 2
    assert "--only NAME chooses one" in capsys.readouterr().err


def test_many_modules_are_grouped_by_name_the_largest_first(tmp_path: Path, capsys) -> None:
    for n in range(1, 46):
        text = (
            f"HloModule jit_{'ab'[n % 2]}\n\nENTRY e {{\n  p = f32[{n}] parameter(0)\n  ROOT t = f32[{n}] tanh(p)\n}}\n"
        )
        (tmp_path / f"module_{n}.after_optimizations.txt").write_text(text)
    assert main(["cost", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines() if line.startswith("jit_")]
    assert [row[:2] for row in rows] == [["jit_b", "x23"], ["jit_a", "x22"]]
    assert [row[-2] for row in rows] == ["360", "352"]  # bytes of the largest: 45 and 44 numbers, read and written
    assert "45 modules of 2 names" in printed.err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completions_know_every_word(shell: str, capsys) -> None:
    assert main(["completion", shell]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in (*COMMANDS, "--target", "--fail-above", "plan"))


def test_a_job_that_is_a_word_prints_its_result_alone(tmp_path: Path, monkeypatch, capsys) -> None:
    ran = []

    def run(words):
        ran.append(words)
        print("what the job prints")
        (tmp_path / "plan.json").write_text("{}\n")
        return 0

    monkeypatch.setattr("llmjax.commands.run_job", run)
    assert main(["plan", "--json", f"--workdir={tmp_path}", "--config.model=gpt2"]) == 0
    assert ran == [["configs/plan.py", f"--workdir={tmp_path}", "--config.model=gpt2"]]
    printed = capsys.readouterr()
    assert printed.out == "{}\n" and "what the job prints" in printed.err
