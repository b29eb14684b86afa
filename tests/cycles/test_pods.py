"""Ways to spread a step over a pod: what divides, what fits, and what the estimates grow with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cycles.device import load_device
from llmjax.cycles.pods import STATE, Spread, Work, candidates, estimate, memory, scaling, spreads
from llmjax.cycles.published.models import Model

XL = Model("gpt2", 48, 1600, 25, 25, 64, 6400, 50257)
LLAMA = Model("llama", 32, 4096, 32, 8, 128, 14336, 128256)
STEP = Work(LLAMA, 8.03e9, 1024, 4096)
V5E = load_device("tpu:v5e")


@given(st.sampled_from([1, 2, 4, 8, 16, 64]), st.sampled_from([8, 64, 96]), st.sampled_from([XL, LLAMA]))
def test_every_spread_uses_all_devices_and_divides_what_it_must(devices, rows, model):
    for spread in spreads(Work(model, 1e9, rows, 512), devices):
        assert spread.devices == devices
        assert rows % (spread.data * spread.fsdp * spread.microbatches) == 0
        assert all(size % spread.tensor == 0 for size in (model.heads, model.groups, model.inner))
        assert model.width % (spread.fsdp * spread.tensor) == 0


def test_25_heads_are_not_shared_by_two_devices():
    assert {spread.tensor for spread in spreads(Work(XL, 1.56e9, 256, 1024), 16)} == {1}


def test_memory_falls_with_fsdp_microbatches_and_remat():
    plain = memory(STEP, Spread(16, 16, 1))
    assert memory(STEP, Spread(1, 256, 1)) < plain
    assert memory(STEP, Spread(16, 16, 1, remat=True)) < plain
    assert memory(STEP, Spread(16, 16, 1, microbatches=4)) < plain
    assert memory(STEP, Spread(256, 1, 1)) > STATE * STEP.parameters


def test_remat_costs_a_forward_pass():
    plain, again = (estimate(STEP, Spread(1, 256, 1, remat), V5E) for remat in (False, True))
    assert again.compute / plain.compute == pytest.approx(4 / 3, rel=0.1)
    assert plain.limit in ("compute", "HBM") and plain.seconds > 0


def test_candidates_fit_where_any_does_the_fastest_first_one_a_mesh():
    found = candidates(STEP, 256, V5E, 5)
    room = V5E.main_memory.capacity.value
    assert all(made.memory <= room for _, made in found)
    assert [made.seconds for _, made in found] == sorted(made.seconds for _, made in found)
    assert len({(s.data, s.fsdp, s.tensor) for s, _ in found}) == len(found) == 5
    assert len({spread.tensor for spread, _ in found}) > 2, "near copies of one another would teach nothing"
    nowhere = candidates(STEP, 2, V5E, 1)
    assert nowhere and nowhere[0][1].memory > room


def test_what_compiled_programs_needed_moves_the_choice():
    first = candidates(STEP, 256, V5E, 1)[0]
    corrected = candidates(STEP, 256, V5E, 1, {first[0].remat: 2 * V5E.main_memory.capacity.value / first[1].memory})
    assert corrected[0][0] != first[0]


def test_more_devices_take_less_time_for_the_same_step():
    curve = scaling(STEP, V5E, [16, 64, 256])
    assert [count for count, _, _ in curve] == [16, 64, 256]
    assert curve[0][2].seconds > curve[1][2].seconds > curve[2][2].seconds
