"""What a row of published figures is of: its model, its program, how it is spread, its seconds."""

from dataclasses import replace

import pytest

from llmjax.cycles.published.cases import LESS_WORK, Case, Layout, case_of, of_less_work
from llmjax.cycles.published.models import model_of, step_flops
from llmjax.cycles.published.table import Row

ROW = Row(
    "r", "C", "made up", "A100-80GB SXM", 1, "GPT-2 124M", "train step", "4", "1024", "", "bf16", "flash", "",
    "step time", 50.0, "ms", "", "",
)  # fmt: skip


def case(**changes) -> Case:
    found = case_of(replace(ROW, **changes))
    assert isinstance(found, Case), found
    return found


def test_models_by_name_by_sizes_and_by_scale():
    small = model_of("GPT-2 124M")
    assert small and small.layers * small.layer_parameters + small.width * small.vocabulary == pytest.approx(
        124e6, rel=0.02
    )
    large = model_of("Llama-2-70B")
    assert large and large.layers * large.layer_parameters == pytest.approx(68.5e9, rel=0.01)
    said = model_of("GPT-6.7B 32L/4096/32H vocab 51200")
    assert said and (said.layers, said.width, said.heads, said.vocabulary) == (32, 4096, 32, 51200)
    scaled = model_of("scale 16: emb 4096, heads 64 x128, mlp 28672 (gated), layers 32, vocab 32000")
    assert scaled and scaled.heads * scaled.head_width == 8192 and scaled.family == "llama"
    assert model_of("Switch (MoE, 4 experts)") is None and model_of("my own model") is None


def test_a_share_has_its_part_of_the_heads_and_the_mlp():
    model = model_of("Llama-2-70B")
    assert model is not None
    part = model.shared(16)
    assert (part.heads, part.groups, part.inner, part.width) == (4, 1, 1792, 8192)


def test_training_alone_has_an_optimiser_and_spread_out_gradients():
    ((program, times),) = case().programs
    assert (program.phase, program.batch, program.dtype, program.fused, times) == ("train", 4, "bfloat16", True, 1.0)
    many = case(chips=8, batch="512", parallel="DP8", note="grad accum 4, act ckpt True", value=5000.0)
    ((program, times),) = many.programs
    assert (program.phase, program.batch, program.remat, times) == ("gradients", 16, True, 4.0)
    assert many.layout == Layout(data=8, steps=4)
    (_, times) = case(batch="64", note="microbatch 32 a GPU", value=500.0).programs[0]
    assert times == 2.0


def test_layers_are_computed_again_where_memory_says_so():
    large = {
        "model": "GPT-175B 96L/12288/96H",
        "chips": 256,
        "batch": "1536",
        "length": "2048",
        "parallel": "FSDP256",
        "value": 1e5,
    }
    assert case(**large).programs[0][0].remat and any("computed again" in told for told in case(**large).told)
    assert not case(**large, note="act ckpt False").programs[0][0].remat
    assert not case().programs[0][0].remat


@pytest.mark.parametrize(
    ("changes", "fused"),
    [
        ({"attention": "flash (SDPA)"}, True),
        ({"attention": "materialised"}, False),
        ({"attention": "materialised for 124M, flash for 5B/175B"}, False),
        ({"attention": "materialised for 126M, flash for 124M/175B"}, True),
        ({"attention": "flash from row 5"}, False),
        ({"attention": "flash from row 5", "dtype": "+ flash attention"}, True),
    ],
)
def test_attention_is_fused_where_the_row_says_so(changes, fused):
    assert case(**changes).programs[0][0].fused == fused


def test_a_time_that_no_chip_could_reach_is_of_other_work():
    decode = {"phase": "decode", "model": "Llama-2-7B", "batch": "1", "length": "2048", "unit": "ms"}
    weights = 6.5e9 * 2 / 2.04e12  # seconds that an A100 of 80 GB needs to read them
    assert case(**decode, value=1.2e3 * weights).seconds > weights
    found = case_of(replace(ROW, **decode, value=0.9e3 * weights))
    assert found == LESS_WORK


def test_a_time_that_does_not_grow_with_the_length_is_of_no_length():
    row = replace(ROW, phase="prefill", batch="64", value=100.0)
    rows = [replace(row, id=f"{n}", length=str(n)) for n in (512, 65536)]
    other = replace(row, id="twice as long", length="1024", value=200.0)
    assert isinstance(case_of(rows[0]), Case) and case_of(rows[1]) == LESS_WORK
    assert of_less_work([*rows, other]) == {"512", "65536"}
    assert of_less_work([rows[0], other]) == frozenset()


@pytest.mark.parametrize(
    ("words", "chips", "layout"),
    [
        ("TP4", 4, Layout(tensor=4)),
        ("DP64 FSDP1 TP1", 64, Layout(data=64)),
        ("DP1 FSDP256 TP1", 256, Layout(fsdp=256)),
        ("2 slice(s), fsdp", 512, Layout(fsdp=256, slices=2)),
        ("2 slice(s), fsdp16 x tp4", 128, Layout(tensor=4, fsdp=16, slices=2)),
        ("FULL_SHARD mp=PURE", 16, Layout(fsdp=16)),
    ],
)
def test_layouts_are_read_from_their_usual_words(words, chips, layout):
    assert case(parallel=words, chips=chips, batch="1024", value=5000.0).layout == layout


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 0.05),
        ({"metric": "throughput", "value": 8192.0, "unit": "tokens/s"}, 0.5),
        ({"metric": "throughput", "value": 8.0, "unit": "sequences/s"}, 0.5),
        ({"metric": "throughput", "value": 4096.0, "unit": "tokens/s/GPU", "chips": 2, "parallel": "DP2"}, 0.5),
        ({"phase": "decode", "metric": "throughput", "value": 10.0, "unit": "tok/s/seq"}, 0.1),
    ],
)
def test_times_in_any_unit(changes, seconds):
    assert case(**changes).seconds == pytest.approx(seconds)


def test_model_flops_are_counted_as_maxtext_does():
    model = model_of("scale 16: emb 4096, heads 64 x128, mlp 28672 (gated), layers 32, vocab 32000")
    assert model is not None
    weights = 32 * (4096 * 8192 * 4 + 3 * 4096 * 28672) + 4096 * 32000
    attention = 12 * 6 * 2048**2 * 8192 * 32
    assert step_flops(model, 6, 2048) == 6 * weights * 6 * 2048 + attention
    row = {"metric": "model TFLOP/s/chip", "unit": "TFLOP/s/chip", "value": 100.0}
    assert case(**row).seconds == pytest.approx(step_flops(model_of("GPT-2 124M"), 4, 1024) / 100e12)  # pyright: ignore


def test_generation_is_a_prompt_and_its_tokens():
    found = case(phase="prefill+generate", length="128", more="8", batch="2", metric="latency")
    (prompt, once), (decode, times) = found.programs
    assert (prompt.phase, once, decode.phase, times, decode.length) == ("prefill", 1.0, "decode", 7.0, 133)


def test_a_decode_step_reads_the_cache_that_the_row_says():
    step = case(phase="decode step rate per sequence", length="2048", batch="8")
    assert step.programs[0][0].length == 2048 and not step.programs[0][0].fused
    assert case(phase="decode one token", length="1", more="128").programs[0][0].length == 128


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware": "Apple M3"}, "no card of Apple M3"),
        ({"metric": "wall time"}, "a bound"),
        ({"model": "deepseek-v3"}, "not among llmjax's"),
        ({"dtype": "fp8_full"}, "not computed"),
        ({"hardware": "T4", "dtype": "bf16"}, "not computed"),
        ({"batch": "see post"}, "not said"),
        ({"chips": 4, "parallel": "pp4_1"}, "spread over 4 chips"),
        ({"unit": "parsecs"}, "not read as a time"),
    ],
)
def test_what_cannot_be_built_says_why(changes, said):
    found = case_of(replace(ROW, **changes))
    assert isinstance(found, str) and said in found
