"""Terms fitted to the compiler's own clock."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from llmjax.cost import cost_module
from llmjax.cycles import compiler_fit
from llmjax.cycles.compiler_clock import agreement, compiler_clock
from llmjax.cycles.device import load_device, to_json
from llmjax.cycles.model import predict
from llmjax.errors import UserError
from llmjax.hlo import parse


def fitted(monkeypatch, text, target="tpu:v5e:2x2"):
    monkeypatch.setattr(compiler_fit, "compile_for", lambda *_: SimpleNamespace(text=text))
    return compiler_fit.fit_to_compiler(target)


def ratio(text, device):
    cost = cost_module(parse(text))
    cycles = {op.name: op.seconds * device.clock_hz.value for op in predict(cost, device).ops}
    return agreement(compiler_clock(cost), cycles).median_ratio


def test_predictions_come_near_the_estimates_that_were_fitted(monkeypatch, repo):
    text = (repo / "tests/testdata/hlo/tpu_block_f32.hlo").read_text()
    device = fitted(monkeypatch, text)
    assert 0.8 < ratio(text, device) < 1.25
    assert device.made_with["fitted_to"] == "estimated_cycles"
    assert device.fit["samples"] == len(compiler_clock(cost_module(parse(text))))
    bare = replace(load_device("tpu:v5e"), fit={}, made_with={})
    assert to_json(replace(device, fit={}, made_with={})) == to_json(bare)  # the chip's own numbers stay


def test_a_compiler_without_a_clock_is_refused(monkeypatch, repo):
    text = "HloModule m\nENTRY e {\n  %p = f32[8] parameter(0)\n  ROOT %n = f32[8] negate(%p)\n}\n"
    with pytest.raises(UserError, match="says nothing"):
        fitted(monkeypatch, text)


def test_no_program_has_a_size_of_gpt2():
    sizes = {768, 1024, 1280, 1600, 3072, 4096, 5120, 6400, 50257}
    for program in compiler_fit.small_programs():
        if program.name.startswith("decode") or program.name.startswith("block"):
            continue
        assert not {3072, 50257, 768} & {d for leaf in program.args for d in leaf.shape} & sizes
