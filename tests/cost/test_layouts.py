"""Whether the dimension that lies side by side moves."""

import pytest

from llmjax.cost import cost_module
from llmjax.cost.layouts import FETCH, minor_moves, overfetched
from llmjax.hlo.parser import parse


@pytest.mark.parametrize(
    ("source", "line", "moves"),
    [
        ("f32[4,8,16]", "f32[4,16,8] transpose(x), dimensions={0,2,1}", True),
        ("f32[4,8,16]", "f32[16,4,8] transpose(x), dimensions={2,0,1}", True),
        ("f32[4,8,16]", "f32[8,4,16] transpose(x), dimensions={1,0,2}", False),
        ("f32[4,8,16]{2,1,0}", "f32[16,4,8]{0,2,1} transpose(x), dimensions={2,0,1}", False),  # the layout undoes it
        ("f32[4,8,16]{2,1,0}", "f32[4,8,16]{1,2,0} copy(x)", True),
        ("f32[4,8,16]{2,1,0}", "f32[4,8,16]{2,0,1} copy(x)", False),
        ("f32[4,8,1]", "f32[4,1,8] transpose(x), dimensions={0,2,1}", False),  # one element has no neighbour
        ("f32[4,8,16]", "f32[4,8,16] negate(x)", False),
    ],
)
def test_minor_moves(source, line, moves):
    plain = f"HloModule m\nENTRY e {{\n  x = {source} parameter(0)\n  ROOT y = {line}\n}}\n"
    shape = line.split(" ")[0]
    inside = f"f {{\n  x = {source} parameter(0)\n  ROOT y = {line}\n}}\n"
    body = f"  x = {source} parameter(0)\n  ROOT z = {shape} fusion(x), kind=kLoop, calls=f\n"
    fused = f"HloModule m\n{inside}ENTRY e {{\n{body}}}\n"
    for text in (plain, fused):
        module = parse(text)
        found = [minor_moves(op, module) for op in cost_module(module).ops]
        assert found == [moves] or (not found and not moves)


def loop(shape, order, kind="kLoop", more=""):
    result = f"f32[{','.join(str(shape[d]) for d in order)}]"
    dims = ",".join(map(str, shape))
    return parse(
        f"HloModule m\nf {{\n  x = f32[{dims}] parameter(0)\n  n = f32[{dims}] negate(x)\n"
        f"  ROOT y = {result} transpose(n), dimensions={{{','.join(map(str, order))}}}\n}}\n"
        f"ENTRY e {{\n  x = f32[{dims}] parameter(0)\n  ROOT z = {result} fusion(x), kind={kind}, calls=f\n}}\n"
    )


@pytest.mark.parametrize(
    ("shape", "order", "kind", "times"),
    [
        ((64, 4096, 32), (2, 0, 1), "kLoop", 15),  # 262,144 elements lie between neighbours: 16 MiB of fetches
        ((64, 4096, 2), (2, 0, 1), "kLoop", 1),  # of two neighbours one is fetched in vain
        ((64, 4096, 32), (2, 0, 1), "kInput", 0),  # by tiles through memory on the chip
        ((64, 4096, 32), (1, 0, 2), "kLoop", 0),  # neighbours stay neighbours
        ((8192, 1024), (1, 0), "kLoop", 0),  # 8,192 fetches are still in the cache when the next column comes
    ],
)
def test_reads_that_are_not_coalesced_fetch_in_vain(shape, order, kind, times):
    module = loop(shape, order, kind)
    (op,) = cost_module(module).ops
    assert overfetched(op, module, 8 * 2**20) == times * op.instruction.shape.bytes
    assert FETCH == 16 * 4
    assert not overfetched(op, module, 2**30)  # a cache that holds it all
