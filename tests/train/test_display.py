import pytest

from llmjax.train.display import Clock, Display
from llmjax.train.task import Evaluated

FIGURES = {"loss": 0.5, "accuracy": 0.75, "tokens_per_second": 12345.6, "mfu": 0.21}
FOUND = Evaluated(0.8, {}, "dev 0.800", "dev accuracy 0.8000, dev loss 0.4000")


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture) -> None:
    with Display(total=100, done=0) as display:
        display.update("finetune", 1, FIGURES)
        display.update("finetune", 2, FIGURES)  # too soon after the last line
        display.evaluated(2, FOUND, best=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("finetune step 1/100  loss 0.500 acc 0.750 12,346 tok/s MFU 21%  ETA -:--")
    assert lines[1] == "step 2: dev accuracy 0.8000, dev loss 0.4000  (best so far)"


def test_what_is_left_counts_neither_compiling_nor_evaluations() -> None:
    clock = Clock(total=1000)
    now = 600.0  # the first step waits ten minutes for the compiler
    assert clock.left(1, now) == "-:--"
    said = ""
    for done in range(2, 101):
        said = clock.left(done, now := now + (60 if done == 50 else 1))  # one stops for an evaluation
    assert said == "15:00"
    assert Clock(10_000).left(1, 5.0) == "-:--"


def test_a_long_run_counts_hours() -> None:
    clock = Clock(total=7204)
    assert [clock.left(done, float(done)) for done in range(1, 5)][-1] == "2:00:00"


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_keeps_step_and_time_left(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Display(total=100_000, done=0) as display:
        for done in range(40_001, 40_010):
            display.update("finetune", done, FIGURES)
    out = capsys.readouterr().out
    assert "40009/100000" in out and "ETA 0:0" in out and "loss 0.500" in out


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Display(total=100, done=40) as display:
        display.update("finetune", 41, FIGURES)
        display.evaluated(41, FOUND, best=False)
        display.update("finetune", 42, FIGURES)
    out = capsys.readouterr().out
    assert "42/100" in out and "loss 0.500" in out and "dev 0.800" in out and "ETA" in out
    assert "step 41: dev accuracy 0.8000" in out
