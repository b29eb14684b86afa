"""What is added to a compiled program: layers, attention, collectives, the optimiser, kernels by themselves."""

from dataclasses import replace
from pathlib import Path

import pytest

from llmjax.cycles.device import load_device
from llmjax.cycles.published.cases import Layout, Program
from llmjax.cycles.published.kernels import kernel_seconds
from llmjax.cycles.published.models import model_of
from llmjax.cycles.published.pricing import (
    Taken,
    added_up,
    assembled,
    between_slices,
    collective,
    fused_attention,
    gathered_layer,
    gathered_weights,
    layers_to_compile,
    once_a_step,
    shared_layer,
)
from llmjax.cycles.published.table import read_table

A100, H100, V5E = (load_device(name) for name in ("gpu:a100", "gpu:h100", "tpu:v5e"))
MODEL = model_of("Llama-2-7B")
assert MODEL is not None
TRAIN = Program(MODEL, "gradients", 2, 4096, "bfloat16", fused=True)
TINY = Path(__file__).parents[2] / "testdata" / "published" / "tiny.csv"


def test_two_programs_give_all_layers():
    plain = replace(TRAIN, fused=False)
    assert assembled(plain, Layout(), H100, (1, 3), (Taken(5, 5), Taken(9, 9))) == pytest.approx(3 + 32 * 2)
    assert assembled(plain, Layout(), H100, (32,), (Taken(7, 7),)) == pytest.approx(7)


def test_copies_from_main_memory_go_on_beside_what_a_layer_shares():
    decode, layout = replace(TRAIN, phase="decode", fused=False), Layout(tensor=4)
    shared = shared_layer(decode, layout, V5E)

    waiting = (Taken(1.0, 0.5), Taken(1.0 + 10 * shared, 0.5 + 9 * shared))
    halfway = (Taken(1.0, 0.5), Taken(1.0 + 10 * shared, 0.5 + 9.5 * shared))
    for taken, added in ((waiting, 0.0), (halfway, 0.5)):
        beside, alone = (assembled(decode, each, V5E, (1, 2), taken) for each in (layout, Layout()))
        assert beside - alone == pytest.approx(32 * added * shared)


def test_so_many_layers_are_compiled_that_no_cache_holds_their_weights():
    few, more = layers_to_compile(TRAIN, H100)
    assert (few, more) == (1, 2)
    small = model_of("GPT-2 124M")
    assert small is not None
    some = layers_to_compile(replace(TRAIN, model=small), A100)
    assert some[0] * small.layer_parameters * 2 >= A100.memory[0].capacity.value
    assert layers_to_compile(replace(TRAIN, model=small), replace(A100, memory=A100.memory[-1:])) == (1, 2)
    assert layers_to_compile(replace(TRAIN, model=replace(small, layers=2)), A100) == (2,)


@pytest.mark.parametrize("device", [H100, V5E])
def test_fused_attention_takes_its_products_and_three_times_as_long_with_its_backward_pass(device):
    forward = fused_attention(replace(TRAIN, phase="forward"), device)
    flops = 4 * 2 * 32 * 4096**2 / 2 * 128
    roof = flops / device.matmul["bf16"].value
    assert roof < forward < 3 * roof
    both = fused_attention(TRAIN, device)
    assert 2.5 < both / forward < 3.7
    assert fused_attention(replace(TRAIN, remat=True), device) == pytest.approx(both + forward)
    assert (
        fused_attention(replace(TRAIN, fused=False), device)
        == fused_attention(replace(TRAIN, phase="decode"), device)
        == 0
    )


def test_devices_that_share_layers_wait_for_each_other():
    layout = Layout(tensor=8)
    forward = shared_layer(replace(TRAIN, phase="prefill"), layout, H100)
    assert forward > 2 * 2 * 7 / 8 * 2 * 2 * 4096 * 4096 / H100.link.value
    assert shared_layer(TRAIN, layout, H100) == pytest.approx(2 * forward)
    assert shared_layer(replace(TRAIN, remat=True), layout, H100) == pytest.approx(3 * forward)
    assert shared_layer(replace(TRAIN, phase="decode"), layout, H100) < forward / 10
    assert shared_layer(TRAIN, Layout(), H100) == 0


def test_gathered_weights_hide_behind_long_layers_and_not_behind_short_ones():
    layout, plain = Layout(fsdp=8), replace(TRAIN, fused=False)
    wait = gathered_weights(plain, layout, H100)
    assert wait > 3 * 7 / 8 * 2 * MODEL.layer_parameters / H100.link.value
    slower = (1 - H100.terms["collective.beside"].value) * wait  # while NCCL runs beside
    assert assembled(plain, layout, H100, (1, 2), (Taken(1, 1), Taken(2, 2))) == pytest.approx(32 * (1 + slower))
    assert assembled(plain, layout, V5E, (1, 2), (Taken(1, 1), Taken(2, 2))) == pytest.approx(32)
    assert assembled(plain, layout, H100, (1, 2), (Taken(0, 0), Taken(1e-9, 1e-9))) == pytest.approx(
        32 * wait, rel=1e-3
    )


def test_a_group_over_two_hosts_is_priced_by_their_network():
    inside, across = (collective(H100, "all-reduce", 8, 1e9, stride, 64) for stride in (1, 8))
    assert across > 5 * inside  # one device a host: nobody shares the bytes that go out
    assert collective(H100, "all-reduce", 16, 1e9, 1, 16) > collective(H100, "all-reduce", 8, 1e9, 1, 8)
    assert collective(H100, "all-reduce", 1, 1e9, 1, 8) == 0


def test_slices_exchange_gradients_over_the_data_centres_network():
    two, many = (between_slices(V5E, slices, 1e9) for slices in (2, 32))
    assert two > 1e9 / V5E.network.value and two < many < 2 * two
    assert between_slices(V5E, 1, 1e9) == 0
    alone, spread = (once_a_step(TRAIN, Layout(fsdp=256, slices=n), V5E, 1.0) for n in (1, 2))
    assert 0 < alone < spread
    assert (
        once_a_step(TRAIN, Layout(), V5E, 1.0)
        == once_a_step(replace(TRAIN, phase="decode"), Layout(tensor=4), V5E, 1)
        == 0
    )


def test_kernels_need_no_compiler():
    product, copy, reduce, other = read_table(TINY)
    for row in (product, copy, reduce):
        found = kernel_seconds(row)
        assert not isinstance(found, str), found
        predicted, published, _ = found
        assert 0.3 < predicted / published < 3
    assert kernel_seconds(copy)[1] == pytest.approx(2 * 16777216 / 700e9)  # pyright: ignore[reportIndexIssue]
    assert "no card" in str(kernel_seconds(other))
    layer = replace(product, model="phi-2 mlp_up_proj, 4096 tokens", value=0.3, unit="ms")
    assert kernel_seconds(layer)[0] > 2 * 4096 * 2560 * 10240 / H100.matmul["bf16"].value  # pyright: ignore
    assert "no operation" in str(kernel_seconds(replace(layer, model="phi-2 dream, 4096 tokens")))


def test_on_tpus_tokens_are_scattered_in_turn_and_gathered_beside_the_layer():
    layout = Layout(tensor=16)
    scattered, gathered = shared_layer(TRAIN, layout, V5E), gathered_layer(TRAIN, layout, V5E)
    assert scattered == pytest.approx(gathered) and scattered > 0
    whole = added_up(TRAIN, layout, V5E, "all-reduce")
    assert whole < scattered + gathered < 1.2 * whole  # the same bytes, and twice the hops
    assert gathered_layer(TRAIN, layout, H100) == 0 and shared_layer(TRAIN, layout, H100) > 0
    decode = replace(TRAIN, phase="decode")
    assert gathered_layer(decode, layout, V5E) == 0
    assert shared_layer(decode, layout, V5E) == added_up(decode, layout, V5E, "all-reduce")
