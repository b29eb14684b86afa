"""The job that holds predictions against published times: mistakes, its files, programs it builds."""

import json
from dataclasses import replace

import jax
import pytest

from configs.published import get_config
from experiments import _published
from experiments._published import config_of, function_of
from experiments.published import run
from llmjax.cycles.published.cases import Program
from llmjax.cycles.published.models import model_of
from llmjax.errors import UserError

SMALL = model_of("3L/32/2H vocab 1024")
assert SMALL is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table": ""}, "--config.table=FILE.csv is needed"),
        ({"table": "none.csv"}, "cannot be read"),
        ({"tiers": "K,X"}, "'X' is none of A, B, C, D, K"),
        ({"chips": "gpu:h10"}, "'gpu:h10' is none of"),
        ({"tiers": "C"}, "no card of Apple M3"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, changes, said):
    config = get_config("tiny")
    config.update(changes)
    with pytest.raises(UserError) as error:
        run(config, str(tmp_path))
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_kernels_are_scored_and_what_is_left_says_why(tmp_path, capsys):
    run(get_config("tiny"), str(tmp_path))
    found = json.loads((tmp_path / "published.json").read_text())
    assert found["schema"] == "llmjax.published/1" and len(found["rows"]) == 3
    assert found["left"] == {"t4": "no card of Apple M3"}
    assert found["scores"]["by tier"]["K: kernels"]["rows"] == 3
    assert "predicted over published" in (tmp_path / "published.html").read_text()
    said = capsys.readouterr()
    assert "Worst ten" in said.out and "[1/4" in said.err


@pytest.mark.parametrize("phase", ["forward", "gradients", "train", "prefill", "decode"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_programs_of_shares_can_be_traced(family, phase):
    model = replace(SMALL, family=family, heads=3, groups=3)  # three heads of 16 beside a width of 32
    function, args = function_of(Program(model, phase, 2, 16, "bfloat16"), 1)
    out = jax.eval_shape(function, *args)
    assert jax.tree.leaves(out)


def test_bert_and_float16_are_built_too():
    model = replace(SMALL, family="bert")
    config = config_of(Program(model, "forward", 1, 16, "float16", head=False), 2)
    assert (config.layers, config.dtype, config.param_dtype) == (2, "float16", "float16")
    function, args = function_of(Program(model, "forward", 1, 16, "float16", head=False), 1)
    assert jax.eval_shape(function, *args).shape == (1, 16, 32)


@pytest.mark.parametrize("length", [65, 2049])
def test_a_decode_has_a_cache_of_the_length_of_its_row(length):
    _, args = function_of(Program(SMALL, "decode", 2, length, "bfloat16"), 1)
    assert args[2].slots == length


@pytest.mark.parametrize("phase", ["forward", "prefill"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_attention_that_is_priced_apart_is_left_out_of_every_family(family, phase):
    model = replace(SMALL, family=family)
    layer = [config_of(Program(model, phase, 2, 16, "bfloat16", fused), 1).layer for fused in (False, True)]
    assert [each.form for each in layer] == ["softmax", "sum"]
    whole, without = (products(Program(model, phase, 2, 16, "bfloat16", fused)) for fused in (False, True))
    assert whole.count("exponential") > without.count("exponential")


def products(program):
    with _published._precision(program):
        function, args = function_of(program, 1)
        return str(jax.jit(function).lower(*args).as_text())


def test_fused_attention_leaves_its_products_out_and_full_float32_says_highest():
    program = Program(SMALL, "forward", 2, 16, "bfloat16")
    whole, without = products(program), products(replace(program, fused=True))
    assert whole.count("dot_general") - without.count("dot_general") == 2
    assert "HIGHEST" in products(replace(program, dtype="float32"))
    assert "HIGHEST" not in products(replace(program, dtype="tf32"))


def test_what_is_compiled_is_kept(tmp_path, monkeypatch):
    program, calls = Program(SMALL, "forward", 1, 16, "float32"), []

    def compile_lowered(chip, lowered):
        calls.append(chip.name)
        return type("Program", (), {"text": "HloModule m"})()

    monkeypatch.setattr(_published, "compile_lowered", compile_lowered)
    assert not _published.is_kept(program, 1, "gpu:a100", tmp_path)
    for _ in range(2):
        assert _published.compiled(program, 1, "gpu:a100", tmp_path) == "HloModule m"
    assert calls == ["gpu:a100"] and _published.is_kept(program, 1, "gpu:a100", tmp_path)
    # Models that differ in nothing but their number of layers share what is compiled of few.
    deeper = replace(program, model=replace(program.model, layers=9))
    assert _published.is_kept(deeper, 1, "gpu:a100", tmp_path)
    assert not _published.is_kept(replace(program, batch=2), 1, "gpu:a100", tmp_path)
