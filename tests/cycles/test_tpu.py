"""The form of a TPU: its compiler's cycles, corrected, over physics."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cost import cost_module
from llmjax.cycles.device import Figure, load_device
from llmjax.cycles.features import features
from llmjax.cycles.model import predict
from llmjax.cycles.tpu import axes, ring
from llmjax.hlo import parse
from llmjax.targets.names import parse_target

V5E = load_device("tpu:v5e")
TEXT = """HloModule m, is_scheduled=true
f { x = bf16[4096,4096] parameter(0)
  w = bf16[4096,4096] parameter(1)
  ROOT y = bf16[4096,4096] convolution(x, w), dim_labels=bf_io->bf }
ENTRY main {
  x = bf16[4096,4096] parameter(0)
  w = bf16[4096,4096] parameter(1)
  ROOT y = bf16[4096,4096] fusion(x, w), kind=kOutput, calls=f, backend_config={CYCLES}
}
"""


def only(cycles="", device=V5E):
    config = f'"window_config":{{"estimated_cycles":"{cycles}"}}' if cycles else ""
    cost = cost_module(parse(TEXT.replace("CYCLES", config)))
    (op,) = predict(cost, device).ops
    return op, features(cost, device)[0]


def with_term(name, value):
    return replace(V5E, terms={**V5E.terms, name: Figure(value, "user", "a test")})


def test_the_compilers_cycles_are_the_time_and_its_correction_scales_them():
    op, f = only("1500000")
    start = V5E.terms["op.start"].value
    assert f.estimated == 1_500_000 and op.bound == "compute"
    assert op.seconds == pytest.approx(1e-3 + start)
    assert only("1500000", with_term("product.scale", 1.2))[0].seconds == pytest.approx(1.2e-3 + start)
    assert op.compute <= op.seconds and op.overhead >= start


def test_no_estimate_beats_the_main_memory():
    op, f = only("10")
    assert f.bytes == (0.0, 3 * 2 * 4096**2)  # nothing lies in VMEM that the program did not put there
    assert op.seconds >= sum(f.bytes) / V5E.main_memory.bandwidth.value


def test_physics_where_the_compiler_is_silent():
    op, f = only()
    assert f.estimated == 0
    assert 1 < op.seconds / (f.matmul / V5E.matmul["bf16"].value) < 1.5


def test_slices_axes_and_rings():
    assert axes(256, 2) == [16, 16] and axes(512, 3) == [8, 8, 8] and axes(4, 3) == [2, 2] and axes(1, 2) == [1]
    assert ring(256, 256, "tpu:v5e") == (16, 4)  # two rings, two ways
    assert ring(8, 64, "tpu:v5e") == (8, 1)  # an axis of eight is a line on a v5e
    assert ring(8, 512, "tpu:v5p") == (8, 2)  # and a ring on a v5p


@given(st.integers(1, 4096), st.integers(2, 3))
def test_axes_hold_all_devices(devices, dimensions):
    found = axes(devices, dimensions)
    size = 1
    for length in found:
        size *= length
    assert size >= devices and len(found) <= dimensions


GATHER = """HloModule m, num_partitions=DEVICES
ENTRY main {
  x = bf16[1048576] parameter(0)
  ROOT y = bf16[TOTAL] all-gather(x), channel_id=1, dimensions={0}, replica_groups=[1,DEVICES]<=[DEVICES], FLAGS
}
""".replace("FLAGS", "use_global_device_ids=true")


def gather(devices):
    cost = cost_module(parse(GATHER.replace("DEVICES", str(devices)).replace("TOTAL", str(devices << 20))))
    return predict(cost, V5E).ops[0]


def test_a_collective_runs_on_the_links_of_its_axes():
    few, many = gather(4), gather(256)
    assert few.bound == many.bound == "link"
    sent = 255 * 2 * 2**20
    assert many.seconds > sent / V5E.link.value  # never faster than all links of a chip
    assert many.seconds < 2 * sent / V5E.link.value


def test_a_v4_is_compiled_as_one_device_of_two_cores():
    assert parse_target("tpu:v4:2x2x1").config == "megacore" and parse_target("tpu:v5e:2x2").config == ""
