"""The clock job: its findings must be true of any numbers, and a tiny run must end in a page."""

import io
import json
import math
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from configs.clock import get_config
from experiments import clock
from experiments._settings import SECTIONS, values_of
from experiments.clock_parts import chains, growth, parallelism, settings, stages, token
from llmjax.cost.attribution import Place
from llmjax.cycles.growth import Crossing
from llmjax.errors import UserError


def read(**changes):
    config = get_config("tiny")
    with config.unlocked(), config.ignore_type():
        config.update(changes)
    return settings.read_settings(values_of(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subject": "generat"}, "subject='generat' must be one of generate, classify. Did you mean 'generate'?"),
        ({"sections": "token,growht"}, "Did you mean 'growth'?"),
        ({"targets": "gpu:h1000"}, "target 'gpu:h1000' is none of"),
        ({"targets": "cpu"}, "leave it out"),
        ({"model": "gpt3"}, "model='gpt3' is none of"),
        ({"models": ("tiny", "huge")}, "models='huge' is none of"),
        ({"models": ()}, "models=() must be a list of 1 or more"),
        ({"dtype": "float16"}, "dtype='float16' must be one of"),
        ({"subject": "classify", "dtype": "int8"}, "dtype='int8' is none of"),
        ({"sections": "devices"}, "compares one device with several: give --config.mesh.tensor=2"),
        ({"runs": 0}, "runs=0 must be a whole number, 1 to"),
        ({"length": 126}, "length=126: 130 tokens are more than the model's 128"),
        ({"lengths": (16, 999)}, "lengths: 999 tokens are more than the model's 128"),
        ({"batches": (0, 1)}, "batches[0]=0 must be a whole number, 1 to"),
    ],
)
def test_what_cannot_work_is_told_in_a_line(changes, said):
    with pytest.raises(UserError) as error:
        read(**changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_sections_named_means_all():
    assert read().sections == tuple(name for name in SECTIONS if name != "devices")
    mesh = get_config("tiny").mesh
    mesh.tensor = 2
    assert read(mesh=mesh).sections == SECTIONS
    assert read(sections="growth, token").sections == ("growth", "token")


@pytest.mark.parametrize(
    ("role", "path", "stage"),
    [
        ("attention projections", "GPT2/h_3/attn/c_attn", "QKV projection"),
        ("attention projections", "GPT2/h_3/attn/c_proj", "output projection"),
        ("MLP", "GPT2/h_3/mlp/c_proj", "MLP"),
        ("data movement", "GPT2/h_3/attn/cache", "cache write"),
        ("vocabulary projection", "GPT2/lm_head", "vocabulary projection"),
        ("other", "GPT2/score", stages.HEAD),
    ],
)
def test_ops_have_the_stage_of_their_module(role, path, stage):
    assert stages.stage_of(Place(module_path=path, role=role)) == stage


def test_in_flight_is_rate_times_latency():
    found = chains.Chains(4.0, {1: 2.0, 8: 12.0, 16: 10.0})
    assert found.best == 12.0
    assert found.gained == 6.0
    assert found.in_flight == 48.0


def test_chains_cut_the_same_work_into_pieces():
    import jax.numpy as jnp

    x = jnp.ones(4)
    alone = chains._chain(x, chains.LINKS)
    assert jnp.allclose(chains._sums(1)(x), alone)
    several = sum(chains._chain(x * (1 + n / 64), chains.LINKS // 4) for n in range(4))
    assert jnp.allclose(chains._sums(4)(x), several)


@pytest.mark.parametrize(
    ("exponent", "word"),
    [(-0.5, "fewer"), (0.0, "hardly"), (0.5, "less than"), (1.0, "about in"), (1.2, "more than")],
)
def test_a_slope_has_its_words(exponent, word):
    assert word in growth._slope(exponent)


def test_a_crossing_says_whether_it_was_seen():
    assert growth._where(Crossing(300, "inside"), "rows") == "at about 300 rows"
    assert "extrapolated" in growth._where(Crossing(3000, "beyond"), "rows")
    assert "already at 1 rows or fewer" in growth._where(Crossing(1, "before"), "rows")
    assert growth._where(None, "rows") == "nowhere near the grid"


def test_ways_have_their_threads_and_flags():
    found = parallelism.ways(read(widths=(128, 512)), 2)
    assert found["decode", parallelism.ONE].threads == 1
    assert found["decode", "vectors of 512 bits"].flags == "--xla_cpu_prefer_vector_width=512"
    assert found["prefill", parallelism.ALL].flags == ""
    alone = parallelism.ways(read(), 1)
    assert set(alone) == {("prefill", parallelism.ALL), ("decode", parallelism.ALL)}


def test_the_pipeline_names_a_source_for_each_row():
    assert all(row[-1] in (token.ZEN4, token.AGNER, token.GCC) for row in token.PIPELINE)
    assert all(source in token.SOURCES for source in ("57647", "Agner Fog", "GCC"))


def run_job(folder: Path, repo: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "launch.py", "--config=configs/clock.py:tiny", f"--workdir={folder}", *flags]
    return subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A tiny run of the sections that share its measurements: its folder, what it told, and clock.json."""
    folder = tmp_path_factory.mktemp("clock")
    config = get_config("tiny")
    config.sections, config.programs = "token,parallelism,resources,growth,likeness", 1
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as told:
        # Chains as short as may be: what is measured is written, whatever it is.
        patch.setattr(chains, "LINKS", chains.CHAINS[-1])
        patch.setattr(chains, "_TURNS", 2)
        clock.run(config, str(folder))
    document = json.loads((folder / "clock.json").read_text())
    # Of a busy machine the page says first that it is too noisy: no clock decides a test.
    document["sections"] = [section for section in document["sections"] if section["key"] != "noise"]
    return folder, told.getvalue(), document


def section_of(document, key):
    return next(section for section in document["sections"] if section["key"] == key)


def test_a_tiny_run_ends_in_a_page(page):
    folder, told, document = page
    keys = ["token", "parallelism", "resources", "growth", "likeness"]
    assert [section["key"] for section in document["sections"]] == keys
    assert "[5/5" in told
    for section in document["sections"]:
        assert section["findings"] and section["tables"]
        for finding in section["findings"]:
            assert re.search(r"\d", finding), finding
            assert not re.search(r"\b(nan|inf)\b", finding), finding
    html = (folder / "clock.html").read_text()
    assert html.startswith("<!DOCTYPE html>") or html.startswith("<!doctype html>")
    assert not [name for name in os.listdir(folder) if name not in ("clock.json", "clock.html")]


def test_stages_add_up_to_the_run(page):
    _, _, document = page
    rates, stages_, *_ = section_of(document, "token")["tables"]
    for at, phase in enumerate(row[0]["value"] for row in rates["rows"]):
        whole = next(row[2]["value"] for row in rates["rows"] if row[0]["value"] == phase)
        inside = [
            row[1 + 3 * at]["value"]
            for row in stages_["rows"]
            if row[0]["value"] not in (stages.TOKENISE, stages.SAMPLE, stages.DETOKENISE)
        ]
        assert math.isclose(sum(value or 0 for value in inside), whole, rel_tol=1e-6)


def test_parallelism_is_work_over_span(page):
    _, _, document = page
    for row in section_of(document, "parallelism")["tables"][0]["rows"]:
        work, span, ratio = (cell["value"] for cell in row[1:4])
        assert math.isclose(ratio, work / span)
        assert work > 1e6  # a tiny GPT-2's vocabulary projection alone
        work, span, ratio = (cell["value"] for cell in row[4:7])
        assert 0 < span <= work and math.isclose(ratio, work / span)


def test_memory_grows_with_the_context(page):
    _, _, document = page
    rows = section_of(document, "resources")["tables"][0]["rows"]
    weights = {row[2]["value"] for row in rows}
    # 1.6 M parameters of a tiny GPT-2, its vocabulary padded to whole blocks
    assert len(weights) == 1 and 6.4e6 < weights.pop() < 6.7e6


def test_growth_has_measured_and_predicted_lines(page):
    _, _, document = page
    for plot in section_of(document, "growth")["plots"]:
        assert {series["kind"] for series in plot["series"]} == {"measured", "modelled"}


def test_errors_are_one_line_and_leave_no_files(tmp_path, repo):
    done = run_job(tmp_path, repo, "--config.subject=poetry")
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.subject='poetry' must be one of")
    assert not list(tmp_path.iterdir())
