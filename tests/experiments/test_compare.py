"""The comparison job: rows of chips, failures among them, as a table and as JSON."""

import gzip
import json
from pathlib import Path

import pytest

from configs import compare as config
from experiments import compare
from llmjax import analyze_hlo
from llmjax.cycles.compiler_clock import compiler_clock
from llmjax.cycles.device import load_device
from llmjax.errors import UserError
from llmjax.targets import aot

HLO = Path(__file__).parent.parent / "testdata" / "hlo"
TEXTS = {"cpu": "cpu_0.12.0.1_block_f32", "tpu": "tpu_block_f32", "cuda": "gpu_block_f32"}
MEMORY = {"arguments": 100 * 10**9, "outputs": 10, "aliased": 0, "temporaries": 5, "code": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def compilers(monkeypatch):
    """Compilers that answer with texts of the test data; TPU v2's refuses."""

    def child(request, program):
        assert program.startswith(b"ML")  # MLIR bytecode
        if request["topology"].startswith("v2"):
            return {"error": "INTERNAL: no"}
        text = (HLO / f"{TEXTS[request['platform']]}.hlo").read_text()
        return {"text": text, "memory": MEMORY, "cost_analysis": None, "compile_seconds": 2.0}

    monkeypatch.setattr(aot, "_child", child)
    monkeypatch.setattr(aot, "_check_plugin", lambda target: None)


def run(tmp_path, capsys, monkeypatch, columns=80, **settings):
    monkeypatch.setenv("COLUMNS", str(columns))
    c = config.get_config("tiny")
    c.update(settings)
    compare.run(c, str(tmp_path / "w"))
    return json.loads((tmp_path / "w" / "compare.json").read_text()), capsys.readouterr().out


def test_tiny_really_compiles(tmp_path, capsys, monkeypatch):
    found, shown = run(tmp_path, capsys, monkeypatch)
    (row,) = found["chips"]
    assert (row["target"], row["fits"], row["seconds"]) == ("cpu", None, None)
    assert row["compile_seconds"] > 0 and row["memory_needed"] > 0
    assert found["tokens"] == 2 * 16 and found["schema"] == "llmjax.compare/1"
    assert "tiny classify" in shown and "cpu" in shown


@pytest.mark.parametrize("columns", [80, 120])
def test_a_row_a_chip_and_failures_are_rows(tmp_path, capsys, monkeypatch, compilers, columns):
    targets = "cpu,gpu:h100,tpu:v2:2x2,tpu:v5e:2x2,gpu:nowhere,gpu"
    found, shown = run(tmp_path, capsys, monkeypatch, columns, targets=targets)
    rows = {row["target"]: row for row in found["chips"]}
    assert list(rows) == targets.split(",")
    assert "refuses" in rows["tpu:v2:2x2"]["error"]
    assert "is none of" in rows["gpu:nowhere"]["error"] and "no GPU is attached" in rows["gpu"]["error"]
    h100, v5e = rows["gpu:h100"], rows["tpu:v5e:2x2"]
    assert h100["fits"] is False and h100["memory_too_much"] == 100 * 10**9 + 15 - 80 * 2**30
    assert v5e["compiler_models"] == ["estimated_cycles"] and v5e["compiler_cycles"] > 0
    assert h100["cycles"] == pytest.approx(h100["seconds"] * 1.98e9)
    assert v5e["bound"] and 0 < v5e["utilisation"] < 1
    table = [line for line in shown.splitlines() if line.startswith(("chip", *rows))]
    assert len(table) == 1 + len(rows) and max(map(len, table)) <= columns
    assert ("tokens/s" in shown) == (columns == 120)
    page = (tmp_path / "w" / "compare.html").read_text()
    assert all(name in page for name in rows) and page.count('class="chart plot"') == 3
    assert sum(h100["seconds_by_bound"].values()) > 0 and h100["bound"] in h100["seconds_by_bound"]
    assert "Does not fit: gpu:h100 (14.1 GB too much), tpu:v5e:2x2 (" in " ".join(shown.split())


def test_the_prediction_and_its_agreement():
    report, device = analyze_hlo(HLO / "tpu_block_f32.hlo"), load_device("tpu:v5e")
    clock = compiler_clock(report.cost)
    found = compare.predicted(report, device, "f32", 10, clock)
    assert found["seconds_low"] <= found["seconds"] <= found["seconds_high"]
    assert found["seconds_per_token"] * 10 == pytest.approx(found["seconds"])
    assert found["cycles"] == pytest.approx(found["seconds"] * 1.5e9)
    assert 0 < found["utilisation"] < 1
    assert 0 < found["agreement"]["ops"] <= len(clock)


def test_a_second_run_takes_the_texts_from_the_cache(tmp_path, capsys, monkeypatch, compilers):
    found = []
    for _ in range(2):  # from one line: a program says from where it was called
        found.append(run(tmp_path, capsys, monkeypatch, targets="gpu:h100,tpu:v5e:2x2")[0])
        files = sorted((tmp_path / "cache" / "llmjax" / "aot").iterdir())
        assert len(files) == 2 and json.loads(gzip.decompress(files[0].read_bytes()))["text"]
        monkeypatch.setattr(aot, "_child", lambda *_: pytest.fail("compiled again"))
    assert found[0] == found[1]


def test_every_target_failed_is_an_error(tmp_path, capsys, monkeypatch, compilers):
    with pytest.raises(UserError, match="no target could be compiled"):
        run(tmp_path, capsys, monkeypatch, targets="gpu:nowhere,tpu:v2:2x2")
    assert "refuses" in capsys.readouterr().out and (tmp_path / "w" / "compare.json").exists()


def test_mistakes(tmp_path):
    c = config.get_config("tiny")
    c.targets = " , "
    with pytest.raises(UserError, match="must be a list of 1 or more"):
        compare.run(c, str(tmp_path))
    c.targets = "gpu:h10,tpu:zz"
    with pytest.raises(UserError, match=r"target 'gpu:h10' is none of .* Did you mean 'gpu:h100'"):
        compare.run(c, str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="no such variant"):
        config.get_config("tiyn")


@pytest.mark.parametrize("columns", [80, 110, 120])
def test_agreement_and_what_is_missing_stand_below(tmp_path, capsys, monkeypatch, compilers, columns):
    found, shown = run(tmp_path, capsys, monkeypatch, columns, targets="cpu,gpu:h100,tpu:v5e:2x2")
    rows = {row["target"]: row for row in found["chips"]}
    assert max(map(len, shown.replace(str(tmp_path), "").splitlines())) <= columns
    agreed = rows["tpu:v5e:2x2"]["agreement"]
    assert ("ours/its" in shown) == (columns == 120)
    flat = " ".join(shown.split())
    ratio, tau = f"{agreed['median_ratio']:.2g}x", f"{agreed['kendall']:.2f}"
    if columns == 120:
        line = next(line for line in shown.splitlines() if line.startswith("tpu:v5e:2x2"))
        assert line.split()[-2:] == [ratio, tau]
    else:
        assert f"tpu:v5e:2x2 {ratio} {tau}" in flat
    assert "The time on cpu needs a card of this machine" in flat and "--config.card=FILE" in flat


def test_a_card_gives_the_cpu_a_time(tmp_path, capsys, monkeypatch):
    chip = load_device("tpu:v5e")
    monkeypatch.setattr(compare, "load_device", lambda name: chip if name == "my.json" else pytest.fail(name))
    found, shown = run(tmp_path, capsys, monkeypatch, card="my.json")
    (row,) = found["chips"]
    assert row["device"] == chip.title and row["seconds"] > 0 and row["fits"] is True
    assert "needs a card" not in shown and "not measured" in shown
