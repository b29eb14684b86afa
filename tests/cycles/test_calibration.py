"""Calibration: fits find known terms, cards survive their files, and a tiny run works."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llmjax.cycles.calibration import check_card, combine_all, fit_terms
from llmjax.cycles.contracted import Attention
from llmjax.cycles.device import Figure, from_json, load_device, to_json
from llmjax.cycles.features import Features
from llmjax.cycles.fitted import Terms
from llmjax.cycles.programs import products, programs
from llmjax.errors import UserError

CPU = replace(load_device("gpu:h100"), kind="cpu", terms={}, cores=Figure(2, "user", "test"))


def product(m: int, n: int, k: int) -> Features:
    moved = (0.0,) * (len(CPU.memory) - 1) + (4.0 * (m * k + k * n + m * n),)
    return Features(
        *("dot", "dot", "gemm", "", "f32", 1.0, 2.0 * m * n * k, 0.0, m, n, k, 1, moved, 0.0, 2),
        *(False, False, False, 0.0, 1, 0.0, Attention(), "dot"),
    )


def test_a_fit_finds_the_terms_that_made_the_times():
    true = Terms(overhead=2e-6, compute=1.7, far=1.3, m0=5.0, n0=20.0, k0=8.0)
    shapes = [(m, n, k) for m in (16, 64, 256, 4096) for n in (64, 512, 8192) for k in (32, 256, 4096)]
    random = np.random.default_rng(0)
    samples = [(f, combine_all(f, CPU, true) * random.lognormal(0, 0.02)) for f in (product(*s) for s in shapes)]
    samples[3] = (samples[3][0], samples[3][1] * 8)  # one disturbed measurement
    fitted = fit_terms(samples, CPU)
    held_out = [product(m, n, k) for m, n, k in ((24, 3000, 700), (900, 900, 900), (20, 100, 100))]
    for f in held_out:
        assert combine_all(f, CPU, fitted) == pytest.approx(combine_all(f, CPU, true), rel=0.1)
    assert 1.0 < fitted.spread < 1.1


def test_cards_survive_their_files(tmp_path):
    card = replace(CPU, fit={"dispatch": 1e-5, "terms": {"gemm": {"compute": 2.0}}}, made_with={"jaxlib": "0.0"})
    path = tmp_path / "card.json"
    path.write_text(json.dumps(to_json(card)))
    assert load_device(path) == card == from_json(to_json(card), "x")
    assert "jaxlib 0.0 (here" in check_card(card)
    assert check_card(CPU) == ""


@pytest.mark.parametrize("damage", [{"schema": "other/1"}, {"memory": []}, {"clock_hz": {"value": -1}}])
def test_damaged_cards_are_refused(tmp_path, damage):
    path = tmp_path / "card.json"
    path.write_text(json.dumps({**to_json(CPU), **damage}))
    with pytest.raises(UserError, match=r"card\.json"):
        load_device(path)


def test_calibration_programs_are_not_those_of_gpt2():
    names = [program.name for program in (*products(), *programs())]
    assert len(names) == len(set(names)) > 50
    for program in programs():
        width = int(program.name.split("x")[-1])
        assert width not in (32, 128, 768, 1024)
