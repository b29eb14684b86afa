"""How often each loop runs, and the sentences about it."""

from dataclasses import replace

import pytest

from llmjax.microscope import explain
from llmjax.microscope.explain import Time
from llmjax.microscope.kernel import FROM_CODE, FROM_WORK, UNKNOWN, Work, kernel, simulated
from llmjax.microscope.objects import Simulation
from llmjax.microscope.view import listing, mix_sentence
from llmjax.microscope.x86 import parse
from tests.microscope.code import NESTED, PARTS

WRITTEN = Work(0, 3 * 64 * 4, 0)
SLOW = Simulation(10.0, 4.0, 6.0, {"FP0": 4.0})


def of(text, work=WRITTEN, results=None):
    found = kernel(parse(text)[0], work)
    return found if results is None else simulated(found, results)


def test_turns_from_the_code():
    found = of(NESTED)
    assert [(r.trips, r.runs, r.source) for r in found.regions] == [
        (1, 1, FROM_CODE),
        (3, 3, FROM_CODE),
        (8, 24, FROM_CODE),
    ]
    assert found.hottest is found.regions[2] and found.cycles is None
    assert not explain.coverage(found, 24 * 32) and explain.coverage(found, 2 * 24 * 32)
    assert explain.coverage(found, 10 * 32)


@pytest.mark.parametrize(
    ("work", "turns"),
    [(Work(0, 4 * 10 * 32, 0), 10), (Work(4 * 10 * 8, 0, 0), 10), (Work(0, 0, 4 * 10 * 64), 10), (Work(0, 0, 0), None)],
)
def test_turns_from_the_work(work, turns):
    found = of(PARTS, work)
    assert found.parts == 4 and found.regions[1].trips == turns
    assert found.regions[1].source == (FROM_WORK if turns else UNKNOWN)
    assert found.regions[1].runs == (40 if turns else None)


def test_cycles_are_the_sum_over_regions():
    found = of(NESTED, results=[SLOW, replace(SLOW, cycles=2.0), SLOW])
    assert found.cycles == 10 + 3 * 2 + 24 * 10
    assert found.floor == 4 + 3 * 2 + 24 * 4
    assert found.hottest.runs == 24 and not explain.remainder(found)
    assert "hottest" in listing(found) and listing(found).count("# loop") == 2
    assert "ymm registers of 256 bits, 8 numbers" in mix_sentence(found.hottest).lower()


def test_what_bounds_an_iteration():
    def said(simulation):
        return explain.iteration(replace(of(NESTED).regions[2], simulation=simulation))

    assert "latency" in said(SLOW)
    assert "bound by FP0 (vector arithmetic), busy for 4.0" in said(Simulation(4.1, 4.0, 6.0, {"FP0": 4.0}))
    assert "front end: 24 micro-operations" in said(Simulation(4.1, 4.0, 24.0, {"FP0": 1.0}))
    assert "cannot simulate" in said(Simulation(0.0, 0.0, 0.0, {}, "unsupported"))


BASE = Time(loop=1000.0, floor=400.0, workers=1, bytes=6400.0, flops=100.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measured": 1100.0}, "the code explains the time"),
        ({"measured": 500.0}, "lies between that and the 400"),
        ({"measured": 100.0}, "tables are too slow"),
        (
            {"measured": 9000.0, "memory": 8000.0, "bandwidth": 0.8, "memory_source": "x"},
            "memory-bound, 6.40 kB at 0.7 B",
        ),
        ({"measured": 3000.0, "start": 1500.0, "start_source": "the card"}, "call overhead, 1,500 cycles"),
        ({"measured": 3000.0, "workers": 2}, "for 2 threads"),
        ({"measured": 3000.0, "far": 6400.0, "far_level": "DRAM"}, "20 for each of these 100 lines"),
        ({"measured": 90000.0, "far": 64.0, "far_level": "DRAM"}, "neither the code's"),
        ({"measured": None}, ""),
    ],
)
def test_why_measured_and_predicted_differ(changes, said):
    found = explain.difference(replace(BASE, **changes), None)
    assert said in found and bool(said) == bool(found)


def test_a_library_is_compared_with_the_peaks():
    time = replace(BASE, measured=1000.0, bandwidth=12.8, memory_source="the bandwidth of DRAM")
    assert explain.library(time, "eigen", 0.4, "the peak") == (
        "eigen reaches 0.10 FLOP a cycle, 25% of 0.4, the peak; 6.40 B a cycle, 50% of 12.80, the bandwidth of DRAM."
    )
    assert "no loop of XLA's" in explain.library(BASE, "eigen", None, "")
