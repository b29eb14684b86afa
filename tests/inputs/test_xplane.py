"""Traces of jax.profiler: made by hand in the form of each kind of chip, and a real one of this CPU."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.analyser import analyze_hlo
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.inputs.files import joined, read_sources, the_one
from llmjax.inputs.xplane import find_traces, profile_of, read_trace, target_of
from tests.inputs.protobuf import plane, space

HLO = """HloModule jit_f, is_scheduled=true

body {
  p = f32[8]{0} parameter(0)
  ROOT add.1 = f32[8]{0} add(p, p)
}

cond {
  p.1 = f32[8]{0} parameter(0)
  ROOT less = pred[] constant(true)
}

ENTRY main {
  x = f32[8]{0} parameter(0)
  tanh.2 = f32[8]{0} tanh(x)
  while.3 = f32[8]{0} while(tanh.2), condition=cond, body=body, backend_config={"known_trip_count":{"n":"2"}}
  ROOT neg.4 = f32[8]{0} negate(while.3)
}
"""
US = 1000  # nanoseconds


def tpu(chip="TPU v5 Lite", shift=0.0):
    """Two runs of jit_f(7), of 10 and 12 us: a loop of two turns, and an op whose name is its instruction."""

    def run(start, more):
        tanh = "%tanh.2 = f32[8]{0:T(128)} tanh(f32[8]{0:T(128)} %x)"
        return [
            (tanh, start, 2 * US),
            ("while.3", start + 2 * US, 6 * US),
            ("add.1", start + 3 * US, 1 * US),
            ("add.1", start + 5 * US, 2 * US),
            ("neg.4", start + 8 * US, 2 * US + more),
        ]

    starts = (100 * US + shift, 300 * US + shift)
    modules = [("jit_f(7)", starts[0], 10 * US), ("jit_f(7)", starts[1], 12 * US)]
    lines = {"XLA Modules": modules, "XLA Ops": [*run(starts[0], 0), *run(starts[1], 2 * US)], "Steps": []}
    return lines, {"device_type_string": chip}


def write(folder: Path, *planes: bytes) -> Path:
    file = folder / "plugins" / "profile" / "2026" / "host.xplane.pb"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(space(*planes))
    return file


def us(profile):
    return {name: op.time.median * 1e6 for name, op in profile.ops.items()}


def test_a_tpus_ops_lie_in_the_windows_of_modules(tmp_path):
    planes = [plane(f"/device:TPU:{n}", *tpu(shift=n), {}) for n in range(2)]
    trace = read_trace(write(tmp_path, *planes))
    assert trace.chip == "TPU v5 Lite" and list(trace.runs) == [("jit_f", 7)]
    profile = profile_of("jit_f", trace.runs["jit_f", 7], parse(HLO))
    assert profile.runs == 4  # two on each device
    assert profile.wall.median * 1e6 == pytest.approx(11) and profile.covered == pytest.approx(1)
    assert us(profile) == pytest.approx({"tanh.2": 2, "while.3": 3, "add.1": 3, "neg.4": 3})
    assert profile.ops["add.1"].calls == 2 and profile.from_trace


def test_a_gpus_runs_begin_with_the_first_op(tmp_path):
    def op(name, start, length):
        return (f"kernel_{name}", start * US, length * US, {"hlo_op": name, "hlo_module": "jit_f", "program_id": 7})

    events = [op("tanh.2", 0, 2), op("neg.4", 3, 1), op("tanh.2", 10, 4), op("neg.4", 15, 3)]
    other = [("memcpy", 1 * US, 5 * US)]  # without an op: of no program
    trace = read_trace(write(tmp_path, plane("/device:GPU:0", {"Stream #1": events, "Stream #2": other}, {}, {})))
    profile = profile_of("jit_f", trace.runs["jit_f", 7], parse(HLO))
    assert profile.runs == 2 and profile.wall.median * 1e6 == pytest.approx(6)
    assert us(profile) == pytest.approx({"tanh.2": 3, "neg.4": 2})


def test_devices_of_one_host_are_told_apart(tmp_path):
    def op(name, start, length, device):
        told = {"hlo_op": name, "hlo_module": "jit_f", "program_id": 7, "run_id": 9, "device_ordinal": device}
        return (name, start * US, length * US, told)

    lines = {"one": [op("tanh.2", 0, 2, 0), op("neg.4", 2, 1, 0)], "two": [op("tanh.2", 1, 4, 1), op("neg.4", 5, 3, 1)]}
    trace = read_trace(write(tmp_path, plane("/host:CPU", lines, {}, {})))
    assert set(trace.runs["jit_f", 7]) == {"host:CPU 0", "host:CPU 1"}
    profile = profile_of("jit_f", trace.runs["jit_f", 7], parse(HLO))
    assert (profile.devices, profile.runs, profile.covered) == (2, 2, 1)
    assert us(profile) == pytest.approx({"tanh.2": 3, "neg.4": 2}) and profile.ops["tanh.2"].calls == 1
    assert profile.wall.median * 1e6 == pytest.approx(5)  # of 3 and 7 us


def test_times_join_a_module_that_was_brought_apart(tmp_path):
    (tmp_path / "f.hlo").write_text(HLO)
    trace = write(tmp_path / "trace", plane("/device:TPU:0", *tpu(), {}))
    source = the_one(read_sources(tmp_path / "f.hlo", "").sources, "f.hlo")
    found = joined(source, tmp_path / "trace").measured
    assert found is not None and found.ops["neg.4"].time.median * 1e6 == pytest.approx(3)
    assert joined(source, trace).measured == found
    (tmp_path / "g.hlo").write_text(HLO.replace("jit_f", "jit_g"))
    with pytest.raises(UserError, match=r"has no run of 'jit_g', but of jit_f. Did you mean 'jit_f'\?"):
        joined(the_one(read_sources(tmp_path / "g.hlo", "").sources, "g.hlo"), trace)


def test_programs_without_hlo_are_named(tmp_path):
    file = write(tmp_path, plane("/device:TPU:0", *tpu(), {}))
    with pytest.raises(UserError, match="jit_f ran, but the trace has no HLO of it"):
        read_sources(file, "")


def test_a_real_trace_of_this_cpu(tmp_path):
    @jax.jit
    def traced(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ x), None), x, None, length=3)[0]

    x = jnp.ones((32, 32))
    jax.block_until_ready(traced(x))
    for _ in range(2):  # of two traces in a folder the last counts
        with jax.profiler.trace(str(tmp_path)):
            for _ in range(3):
                jax.block_until_ready(traced(x))
    report = analyze_hlo(find_traces(tmp_path)[0])
    assert report.name == "jit_traced" and report.measured is not None and report.measured.runs == 3
    names = {i.name for c in report.cost.module.computations.values() for i in c}
    assert set(report.measured.ops) <= names
    times = sum(op.time.median for op in report.measured.ops.values())
    assert 0 < times <= 1.01 * report.measured.wall.high
    assert "3 runs in the trace" in str(report)
    with pytest.raises(UserError, match="measured on a CPU, and Google TPU v5e is another kind of chip"):
        analyze_hlo(find_traces(tmp_path)[0], card="tpu:v5e")


@pytest.mark.parametrize(
    ("chip", "target"),
    [
        ("TPU v5 Lite", "tpu:v5e"), ("TPU v5p", "tpu:v5p"), ("TPU v6 Lite", "tpu:v6e"), ("TPU7x", "tpu:tpu7x"),
        ("NVIDIA H100 80GB HBM3", "gpu:h100"), ("Tesla V100-SXM2", "gpu:v100"), ("Abacus", None), ("", None),
    ],
)  # fmt: skip
def test_chips_have_our_names(chip, target):
    assert target_of(chip) == target


@given(st.binary(max_size=80))
def test_any_bytes_are_a_trace_or_refused(data):
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.xplane.pb"
        file.write_bytes(data)
        try:
            read_trace(file)
        except UserError as error:
            assert "is no trace of jax.profiler" in str(error)
