"""The sections on what optimisation buys: sentences that hold whatever was measured."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.clock_parts import carry, ladder, likeness, words, workloads
from experiments.clock_parts.cases import Case, Timing
from experiments.clock_parts.predictions import Forecast, Predicted, predict_cases
from experiments.clock_parts.settings import Machine, Settings
from llmjax.cycles.device import load_device
from llmjax.cycles.measured import Measured
from llmjax.report.page import Page, Section, to_json

MACHINE = Machine(load_device("gpu:h100"), counters=False)
FACTORS = st.floats(1e-3, 1e3)


def settings(**changes) -> Settings:
    known = {field.name for field in dataclasses.fields(Settings)}
    values = {
        "subject": "generate", "model": "tiny", "batch": 1, "length": 16, "new_tokens": 4, "dtype": "float32",
        "card": "", "programs": 4, "targets": (), "models": ("tiny",), "batches": (1, 4), "lengths": (16,), "runs": 2,
        "sections": (), "widths": (128, 256), "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
    }  # fmt: skip
    return Settings(**{name: value for name, value in (values | changes).items() if name in known})


def timing(seconds: float, flops: float = 1e6, moved: float = 1e6, ops: float = 50, compiling: float = 1.0) -> Timing:
    return Timing(Measured(seconds, 0.9 * seconds, 1.1 * seconds), compiling, flops, moved, ops, None)


COUNTS = st.sampled_from(["FLOPs", "bytes"])


@given(
    FACTORS,
    st.dictionaries(st.sampled_from(["FLOPs", "bytes", "ops"]), FACTORS),
    st.none() | st.builds(words.Roof, COUNTS, COUNTS, FACTORS),
)
def test_a_reason_never_promises_what_the_counts_do_not_say(factor: float, found: dict[str, float], roof):
    told = words.reason(factor, found, "2 cores share them", roof)
    changed = {name: ratio for name, ratio in found.items() if not 1 / 1.05 < ratio < 1.05}
    if not changed:
        assert told.startswith("the same FLOPs, bytes and ops")
        assert ("at a loss" in told) == (factor <= 1 / 1.05)
        assert ("in the same time" in told) == (1 / 1.05 < factor < 1.05)
    for name in changed:
        assert name in told
    if "follows the" in told:
        name = told.rpartition("follows the ")[2]
        assert (changed[name] > 1) == (factor > 1)
    if "the limit" in told:
        assert (roof.allows > 1) == (factor > 1)
        assert ("moves" in told) == (roof.before != roof.after)
    if "limit both" in told:
        assert roof.before == roof.after and roof.before not in changed
    if "loss" in told:
        assert factor < 1
    if "gain" in told:
        assert factor > 1


@given(FACTORS)
def test_a_ratio_of_times_is_told_the_right_way_round(factor: float):
    told = words.times(factor)
    assert ("slow" in told) == (factor <= 1 / 1.05)
    if factor >= 1.05:
        assert float(told.split()[0].replace(",", "")) == pytest.approx(factor, rel=0.01)


def test_a_difference_within_the_quartiles_is_not_clear():
    one, many = Case("tiny", "decode", 1, 16), Case("tiny", "decode", 2, 16)
    assert not words.clear((one, timing(1.0)), (one, timing(1.15)))
    assert words.clear((one, timing(1.0)), (one, timing(1.5)))
    assert words.clear((one, timing(1.5)), (many, timing(1.5)))
    wild = dataclasses.replace(timing(1.0), seconds=Measured(1.0, 0.7, 1.3))
    assert words.noisy(wild) and not words.noisy(timing(1.0))
    assert not words.clear((one, wild), (one, timing(9.0)))


def test_counts_are_compared_by_token():
    one, many = Case("tiny", "decode", 1, 16), Case("tiny", "decode", 4, 16)
    found = words.ratios((one, timing(1, 100, 100, 100)), (many, timing(1, 400, 100, 200)))
    assert found == {"FLOPs": 1, "bytes": 4, "ops": 2}


@pytest.mark.parametrize("subject", ["generate", "classify"])
def test_the_ladder_has_its_rungs_and_each_adds_one_thing(subject: str):
    chosen = settings(subject=subject)
    rungs = ladder.rungs_of(chosen, Machine(_cores(2), counters=False))
    assert len({rung.case for rung in rungs if rung.flight == ladder.PROGRAM}) == len(
        [rung for rung in rungs if rung.flight == ladder.PROGRAM]
    )
    for before, after in itertools.pairwise(rungs):
        if before.flight == after.flight:
            a, b = dataclasses.asdict(before.case), dataclasses.asdict(after.case)
            differ = {name for name in a if a[name] != b[name]}
            # A cache and weights as stored come together: without a cache there is no other arrangement.
            assert len(differ - {"prepared"}) <= 1 and differ
    assert any(rung.case.dtype == "int8" for rung in rungs) == (subject == "generate")


def _cores(count: int):
    device = load_device("gpu:h100")
    return dataclasses.replace(device, cores=dataclasses.replace(device.cores, value=count))


@given(st.lists(FACTORS, min_size=16, max_size=16), st.integers(0, 10))
def test_the_ladder_is_written_whatever_was_measured(seconds: list[float], missing: int):
    chosen = settings()
    rungs = ladder.rungs_of(chosen, Machine(_cores(2), counters=False))
    cases = list(dict.fromkeys(rung.case for rung in rungs))
    found = {case: timing(s) for case, s in zip(cases, seconds, strict=False)}
    lost = cases[missing % len(cases)]
    del found[lost]
    made = ladder.make_section(chosen, MACHINE, rungs, found, {lost: "its process ended"}, {})
    assert any("its process ended" in note for note in made.notes)
    for finding in made.findings:
        if "does not pay" in finding:
            assert "slow" in finding
    to_json(Page("", "", (made,)))


@given(st.lists(FACTORS, min_size=20, max_size=20), st.lists(FACTORS, min_size=40, max_size=40))
def test_what_carries_over_is_written_whatever_was_measured(here: list[float], there: list[float]):
    chosen = settings(targets=("gpu:h100",))
    rows = carry.comparisons(chosen, Machine(_cores(2), counters=False))
    shapes = carry.new_shape(chosen)
    cases = list(dict.fromkeys([c for row in rows for c in (row.before, row.after)] + list(shapes)))
    found = {case: timing(s) for case, s in zip(cases, here, strict=False)}
    chips = list(dict.fromkeys(c for row in rows if row.chips for c in row.chips))
    forecast = Forecast(
        {(case, "gpu:h100"): Predicted(s, s, 1, 1, 1, 1) for case, s in zip(chips, there, strict=False)}, ()
    )
    made = carry.make_section(chosen, MACHINE.device, rows, shapes, found, {}, forecast)
    table = made.tables[0]
    assert len(table.rows) == len(rows) + 1
    paying = sum(row[2] == "yes" for row in table.rows[:-1])
    assert all(row[1] >= 1.05 for row in table.rows[:-1] if row[2] == "yes")
    assert all(row[1] < 1 for row in table.rows if row[2] == carry.COSTS)
    assert made.findings[0].startswith(f"{paying} of {len(rows)} ")
    to_json(Page("", "", (made,)))


def test_a_bucket_pays_until_compiling_is_paid_back():
    chosen = settings()
    exact, padded = carry.new_shape(chosen)
    found = {exact: timing(0.1, compiling=2.0), padded: timing(0.3)}
    made = carry.make_section(chosen, MACHINE.device, (), (exact, padded), found, {}, Forecast({}, ()))
    assert any("pays after 10 requests" in finding for finding in made.findings)
    assert made.tables[0].rows[0][1] == pytest.approx(2.1 / 0.3)


def test_machines_and_latency_follow_from_the_service_time():
    mix = workloads.mixes_of(settings(model="gpt2"))[0]
    assert (mix.length, mix.new_tokens) == (200, 100)
    one = workloads.Service(mix, workloads.HERE, 1, "float32", 3.0, 9e9)
    assert one.machine_seconds == 3000
    assert one.machines == math.ceil(1000 / 60 * 3 / 0.7) == 72
    busy = 1000 / 60 * 3 / 72
    assert one.latency == pytest.approx(3 * (1 + busy / (2 * (1 - busy))))
    four = one._replace(requests=4)
    assert four.machines == 18
    assert four.latency == pytest.approx(3 * (1 + busy / (2 * (1 - busy))) + 1.5 * 18 * 60 / 1000)


@given(st.floats(1e-6, 1e3), st.integers(1, 16))
def test_machines_are_never_overloaded(seconds: float, requests: int):
    mix = workloads.mixes_of(settings())[1]
    service = workloads.Service(mix, workloads.HERE, requests, "float32", seconds, seconds)
    load = workloads.RATE * seconds / requests / service.machines
    assert load <= workloads.BUSY + 1e-9
    assert service.machines == 1 or workloads.RATE * seconds / requests / (service.machines - 1) > workloads.BUSY - 1e-9
    assert service.latency >= seconds


def test_workloads_take_the_best_format_of_each_chip():
    chosen = settings(targets=("gpu:h100", "tpu:v5e:2x2"))
    mixes = workloads.mixes_of(chosen)
    mix = mixes[0]
    found = {mix.case("tiny", "float32", 1): timing(2.0), mix.case("tiny", "int8", 1): timing(1.0)}
    forecast = Forecast({(mix.case("tiny", "bfloat16", 1), "gpu:h100"): Predicted(0.1, 1e8, 1, 1, 1, 1)}, ("a note",))
    made = workloads.make_section(chosen, MACHINE, mixes, (1,), found, {}, forecast)
    rows = made.tables[0].rows
    assert [(row[0], row[2]) for row in rows] == [(workloads.HERE, "int8"), ("gpu:h100", "bfloat16")]
    assert "a note" in made.notes
    assert any("10 times as long" in finding for finding in made.findings)


def test_every_likeness_ends_in_a_figure_of_this_run_or_says_that_there_is_none():
    none = likeness.section(settings(), MACHINE, {})
    assert {row[-1] for row in none.tables[0].rows} == {likeness.MISSING}
    before = {"carry": Section("carry", "", ("speculative decoding is 3 times as fast.", "no figure here"))}
    made = likeness.section(settings(), MACHINE, before)
    told = {row[0]: row[-1] for row in made.tables[0].rows}
    assert told["branches and guesses"] == "speculative decoding is 3 times as fast."
    assert told["pipeline"] == likeness.MISSING
    assert "token" in made.notes[0]


def test_a_chip_whose_compiler_is_missing_is_one_note(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    case = Case("tiny", "classify", 1, 16)
    made = predict_cases([case, dataclasses.replace(case, batch=2)], ["gpu:h100"])
    assert not made.found
    assert len(made.notes) == 1 and "pip install 'llmjax[aot-gpu]'" in made.notes[0]


def test_op_by_op_is_predicted_without_a_compiler_and_moves_more():
    case = Case("tiny", "classify", 1, 16, jit=False)
    found = predict_cases([case], ["gpu:h100"]).found[case, "gpu:h100"]
    assert found.seconds > 0 and found.ops > 50
