"""Whether the dimension that lies side by side moves."""

import pytest

from llmjax.cost import cost_module
from llmjax.cost.layouts import minor_moves
from llmjax.hlo.parser import parse


@pytest.mark.parametrize(
    ("source", "line", "moves"),
    [
        ("f32[4,8,16]", "f32[4,16,8] transpose(x), dimensions={0,2,1}", True),
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
