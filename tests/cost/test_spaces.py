"""Bytes by memory: main memory, the chip's own, the host's. Sizes are counted by hand."""

import pytest

from llmjax.cost import Cost, cost_module
from llmjax.cost.attribution import attribute, breakdown
from llmjax.cost.values import total
from llmjax.cycles.device import load_device
from llmjax.cycles.features import features
from llmjax.cycles.model import predict
from llmjax.hlo.parser import parse

SIZE = 64 * 64 * 4
HOST = """HloModule m
ENTRY e {
  p = f32[1048576]{0} parameter(0)
  s = (f32[1048576]{0:S(5)}, f32[1048576]{0}, u32[]) copy-start(p)
  ROOT d = f32[1048576]{0:S(5)} copy-done(s)
}
"""


def program(space: str, config: str = "") -> str:
    """x comes from main memory, y = -x lies in `space`, z = y + x goes back to main memory."""
    return f"""HloModule m
f {{
  a = f32[64,64]{{1,0:{space}}} parameter(0)
  b = f32[64,64]{{1,0}} parameter(1)
  ROOT c = f32[64,64]{{1,0}} add(a, b)
}}
ENTRY e {{
  x = f32[64,64]{{1,0}} parameter(0)
  y = f32[64,64]{{1,0:{space}}} negate(x){config}
  ROOT z = f32[64,64]{{1,0}} fusion(y, x), kind=kLoop, calls=f{config}
}}
"""


@pytest.mark.parametrize("space", ["T(8,128)S(1)", "S(1)", "T(8,128)S(3)"])
def test_on_chip(space):
    found = cost_module(parse(program(space)))
    y, z = (op.cost for op in found.ops)
    assert y == Cost(vector_flops=4096, bytes_read=SIZE, on_chip_bytes=SIZE)
    assert z == Cost(vector_flops=4096, bytes_read=SIZE, bytes_written=SIZE, on_chip_bytes=SIZE)
    assert found.totals.bytes == 3 * SIZE
    assert found.totals.memory_bytes == 5 * SIZE


@pytest.mark.parametrize("space", ["S(1)", "S(2)"])
def test_a_gpus_spaces_are_its_main_memory(space):
    found = cost_module(parse(program(space, ', backend_config={"operation_queue_id":"0"}'))).totals
    assert (found.bytes, found.on_chip_bytes, found.host_bytes) == (5 * SIZE, 0, 0)


def test_a_cpus_host_memory_is_its_main_memory():
    found = cost_module(parse(program("S(5)", ', backend_config={"outer_dimension_partitions":["2"]}'))).totals
    assert (found.bytes, found.on_chip_bytes, found.host_bytes) == (5 * SIZE, 0, 0)


def test_the_largest_array_of_a_tuple_says_where_it_lies():
    text = """HloModule m
ENTRY e {
  t = (f32[1024]{0:S(5)}, f32[2]{0}) parameter(0)
  ROOT c = f32[1024]{0} custom-call(t), custom_call_target="PadToStatic"
}
"""
    found = cost_module(parse(text)).totals
    assert (found.bytes_read, found.bytes_written, found.host_bytes) == (0, 4096, 4096 + 8)


def test_parts_add_up_in_every_memory():
    found = cost_module(parse(program("T(8,128)S(1)")))
    ops = attribute(found)
    for op in ops:
        assert total(part.cost for part in op.parts) == op.op.cost
    for key in ("role", "opcode"):
        assert total(row.cost for row in breakdown(ops, key)) == found.totals


@pytest.mark.parametrize(("chip", "rate"), [("gpu:a100", 25e9), ("gpu:h100", 50e9), ("tpu:v6e", 32e9)])
def test_what_goes_to_the_host_goes_over_pcie(chip, rate):
    device = load_device(chip)
    assert device.host_link is not None and device.host_link.value == rate
    (op,) = predict(cost_module(parse(HOST)), device).ops
    assert op.bound == "link"
    assert 4 * 2**20 / rate <= op.link <= 1.5 * 4 * 2**20 / rate


def test_what_lies_on_the_chip_is_at_the_nearest_level():
    device = load_device("tpu:v5e")
    _, z = features(cost_module(parse(program("T(8,128)S(1)"))), device)
    assert sum(z.bytes) == 3 * SIZE and z.bytes[0] >= SIZE and z.host == 0


def test_the_host_is_far_where_no_way_to_it_is_known():
    device = load_device("gpu:a100")
    (far,) = features(cost_module(parse(HOST)), device)
    (near,) = features(cost_module(parse(HOST)), device.__class__(**{**vars(device), "host_link": None}))
    assert (far.host, near.host) == (4 * 2**20, 0)
    assert near.bytes[-1] - far.bytes[-1] == 4 * 2**20
