"""Formulas of a GPU's kernels: never faster than the data sheet, and in the order that physics wants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cycles import terms as known
from llmjax.cycles.device import load_device
from llmjax.cycles.gpu import unit
from llmjax.cycles.kernels import collective, decode, product, prompt

H100 = load_device("gpu:h100")
TERMS = {name: term.typical for name, term in known.TERMS["gpu"].items()}
UNIT = unit(H100, "bf16", 1.0)
sizes = st.tuples(*[st.integers(1, 20000)] * 3, st.integers(1, 64))


def seconds(m, n, k, batch=1, terms=TERMS):
    memory = 2.0 * batch * (m * k + k * n + m * n) / UNIT.bandwidth
    return product((m, n, k, batch), memory, UNIT, terms, "product"), memory


def test_arrays_of_sizes_have_the_times_of_their_floats():
    sizes_4N = np.array([(1, 7, 128, 5000), (64, 1, 9000, 300), (20000, 64, 128, 7), (1, 1, 3, 64)], float)
    memory_N = np.array([1e-6, 1e-9, 1e-3, 1e-5])
    together = product(tuple(sizes_4N), memory_N, UNIT, TERMS, "product")
    alone = [product(tuple(map(float, sizes_4N[:, n])), memory_N[n], UNIT, TERMS, "product") for n in range(4)]
    assert np.allclose(np.stack(np.broadcast_arrays(*together)).T, np.array(alone), rtol=1e-12)


@given(sizes)
def test_no_product_is_faster_than_the_data_sheet(size):
    found, memory = seconds(*size)
    m, n, k, batch = size
    assert found.total >= max(2.0 * m * n * k * batch / UNIT.peak, memory, TERMS["product.start"])
    assert found.total <= found.compute + found.memory + found.overhead + 1e-12


@given(sizes)
def test_more_of_a_product_never_takes_less(size):
    m, n, k, batch = size
    least = seconds(m, n, k, batch)[0].total * (1 - 1e-9)
    for more in ((2 * m, n, k, batch), (m, 2 * n, k, batch), (m, n, k, 2 * batch)):
        assert seconds(*more)[0].total >= least


def test_a_long_sum_of_few_outputs_is_split():
    whole, _ = seconds(16, 64, 16384)
    joined = {**TERMS, "product.split": 1.0}  # joining parts costs a second: nothing is split
    assert whole.overhead == pytest.approx(TERMS["product.start"] + TERMS["product.split"])
    assert seconds(16, 64, 16384, terms=joined)[0].total > 2 * whole.total


def test_one_tile_too_many_takes_another_wave():
    sms = int(UNIT.sms)
    full, over = (seconds(128, 256 * tiles, 65536)[0].compute for tiles in (sms, sms + 1))
    assert over > 1.1 * full


def test_attention_by_hand():
    flops, exponentials = 1e15, 1e9
    found = prompt((flops, exponentials, 0, 1), 0.0, UNIT, 4e12, TERMS)
    assert found.compute == pytest.approx(1e15 / UNIT.peak / TERMS["prompt.share"], rel=0.01)
    one = prompt((flops, exponentials, 1, 2), 0.0, UNIT, 4e12, TERMS)
    assert one.compute == pytest.approx(2 * UNIT.sms * found.compute, rel=0.01)  # a single block keeps one SM busy
    read = decode(1, 1.0, UNIT, TERMS)
    assert read.total == pytest.approx(1.0, rel=0.01)


@given(st.sampled_from(known.COLLECTIVES), st.integers(2, 64), st.floats(1, 1e10))
def test_no_collective_beats_its_link(name, group, wire):
    total, latency = collective(name, group, wire, 450e9, TERMS)
    assert total >= max(latency, wire / 450e9)
    assert collective(name, group, 2 * wire, 450e9, TERMS)[0] > total


def test_devices_on_one_bus_crowd_it():
    bus = {**TERMS, "collective.contention": 2.0}
    one, other = (collective("all-reduce", n, 1e9, 32e9, bus)[0] for n in (2, 8))
    assert other > 8 * one
