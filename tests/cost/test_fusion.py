"""Bytes at a fusion's border, and its interiors, which add up."""

import pytest

from llmjax.cost import Cost, OpCost, cost_module
from llmjax.hlo import HloParseError
from llmjax.hlo.parser import parse


def fusion(interior: str, operands: str, result: str, kind: str = "kLoop") -> OpCost:
    """The cost of a fusion: `interior` is one instruction a line, `operands` the types of its parameters."""
    shapes = operands.split(" ")
    parameters = "\n".join(f"p{n} = {shape} parameter({n})" for n, shape in enumerate(shapes))
    names = ", ".join(f"p{n}" for n in range(len(shapes)))
    text = f"""HloModule m

add {{
a = f32[] parameter(0)
b = f32[] parameter(1)
ROOT c = f32[] add(a, b)
}}

fused {{
{parameters}
{interior}
}}

ENTRY main {{
{parameters}
ROOT f = {result} fusion({names}), kind={kind}, calls=fused
}}
"""
    (op,) = cost_module(parse(text)).ops
    assert not op.unmodelled
    assert sum((part.cost for part in op.fused), Cost()) == op.cost.work
    assert (op.cost.bytes_read, op.cost.bytes_written) == (
        sum(op.traffic.reads) + op.traffic.constants,
        sum(op.traffic.writes),
    )
    return op


BIG = "f32[1000,16]"
TABLE = 1000 * 16 * 4


@pytest.mark.parametrize(
    ("interior", "operands", "result", "reads", "writes"),
    [
        # element for element; a value used twice is read once
        ("a = f32[64] multiply(p0, p0)\nROOT b = f32[64] add(a, p1)", "f32[64] f32[64]", "f32[64]", (256, 256), (256,)),
        # slices read themselves, behind other names and elementwise operations too
        ("ROOT a = f32[2,16] slice(p0), slice={[3:5],[0:16]}", BIG, "f32[2,16]", (128,), (128,)),
        (
            "a = f32[16000] bitcast(p0)\nb = f32[16000] negate(a)\nROOT c = f32[9] slice(b), slice={[0:9]}",
            BIG,
            "f32[9]",
            (36,),
            (36,),
        ),
        (
            "i = s32[] constant(0)\nROOT a = f32[2,16] dynamic-slice(p0, p1, i), dynamic_slice_sizes={2,16}",
            f"{BIG} s32[]",
            "f32[2,16]",
            (128, 4),
            (128,),
        ),
        # two slices read both, but never more than the array
        (
            "a = f32[600,16] slice(p0), slice={[0:600],[0:16]}\nb = f32[600,16] slice(p0), slice={[400:1000],[0:16]}\n"
            "ROOT c = f32[600,16] add(a, b)",
            BIG,
            "f32[600,16]",
            (TABLE,),
            (600 * 64,),
        ),
        # one other use of the parameter, and it is read whole
        (
            "z = f32[] constant(0)\na = f32[2,16] slice(p0), slice={[3:5],[0:16]}\n"
            "b = f32[16] reduce(p0, z), dimensions={0}, to_apply=add\n"
            "ROOT c = (f32[2,16], f32[16]) tuple(a, b)",
            BIG,
            "(f32[2,16], f32[16])",
            (TABLE,),
            (128, 64),
        ),
        # gathers read rows
        (
            "a = f32[5,16] gather(p0, p1), offset_dims={1}, collapsed_slice_dims={0}, start_index_map={0}, "
            "index_vector_dim=1, slice_sizes={1,16}\nROOT b = f32[5,16] add(a, a)",
            f"{BIG} s32[5,1]",
            "f32[5,16]",
            (320, 20),
            (320,),
        ),
        # broadcasts read what they repeat
        (
            "a = f32[1000,16] broadcast(p1), dimensions={1}\nROOT b = f32[1000,16] add(p0, a)",
            f"{BIG} f32[16]",
            BIG,
            (TABLE, 64),
            (TABLE,),
        ),
        # a reduction of a slice needs the slice
        (
            "z = f32[] constant(0)\na = f32[1000,16] negate(p0)\nb = f32[10,16] slice(a), slice={[0:10],[0:16]}\n"
            "ROOT c = f32[10] reduce(b, z), dimensions={1}, to_apply=add",
            BIG,
            "f32[10]",
            (640,),
            (40,),
        ),
        # in-place updates read and write what changes
        (
            "z = s32[] constant(0)\nROOT a = f32[1000,16] dynamic-update-slice(p0, p1, p2, z)",
            f"{BIG} f32[2,16] s32[]",
            BIG,
            (0, 128, 4),
            (128,),
        ),
        (
            "z = s32[] constant(0)\na = f32[1000,16] dynamic-update-slice(p0, p1, p2, z)\n"
            "b = f32[16000] bitcast(a)\nROOT c = (f32[16000], f32[2,16]) tuple(b, p1)",
            f"{BIG} f32[2,16] s32[]",
            "(f32[16000], f32[2,16])",
            (0, 128, 4),
            (128, 128),
        ),
        # not in place: the updated array is made here, so all of it is written
        (
            "z = s32[] constant(0)\no = f32[] constant(0)\nb = f32[1000,16] broadcast(o), dimensions={}\n"
            "ROOT a = f32[1000,16] dynamic-update-slice(b, p0, p1, z)",
            "f32[2,16] s32[]",
            BIG,
            (128, 4),
            (TABLE,),
        ),
        # changed while converted: the whole array goes through
        (
            "z = s32[] constant(0)\na = f32[1000,16] convert(p0)\nb = f32[1000,16] dynamic-update-slice(a, p1, p2, z)\n"
            "ROOT c = bf16[1000,16] convert(b)",
            "bf16[1000,16] f32[2,16] s32[]",
            "bf16[1000,16]",
            (998 * 32, 128, 4),
            (TABLE // 2,),
        ),
        (
            "ROOT a = f32[1000,16] scatter(p0, p1, p2), to_apply=add, update_window_dims={1}, "
            "inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1",
            f"{BIG} s32[5,1] f32[5,16]",
            BIG,
            (320, 20, 320),
            (320,),
        ),
        # a parameter that nothing needs
        ("ROOT a = f32[64] negate(p0)", "f32[64] f32[64]", "f32[64]", (256, 0), (256,)),
        # packed four-bit integers
        (
            "ROOT a = s4[64]{0:E(4)} slice(p0), slice={[0:64]}",
            "s4[256]{0:E(4)}",
            "s4[64]{0:E(4)}",
            (32,),
            (32,),
        ),
    ],
)
def test_border(interior, operands, result, reads, writes):
    op = fusion(interior, operands, result)
    assert op.traffic.reads == reads
    assert op.traffic.writes == writes


def test_constants_inside_are_read():
    op = fusion("c = f32[3] constant({1, 2, 3})\nROOT a = f32[3] add(p0, c)", "f32[3]", "f32[3]")
    assert op.traffic.constants == 12


def test_tuple_parameters():
    op = fusion(
        "a = f32[64] get-tuple-element(p0), index=0\nb = f32[32] get-tuple-element(p0), index=1\n"
        "c = f32[8] slice(a), slice={[0:8]}\nd = f32[8] slice(b), slice={[0:8]}\nROOT e = f32[8] add(c, d)",
        "(f32[64],f32[32])",
        "f32[8]",
    )
    assert op.traffic.reads == (64,)


def test_interiors_of_interiors():
    text = """HloModule m

inner {
  a = f32[64,64] parameter(0)
  b = f32[64,64] tanh(a)
  ROOT c = f32[8,64] slice(b), slice={[0:8],[0:64]}
}

outer {
  x = f32[64,64] parameter(0)
  y = f32[64,32] parameter(1)
  s = f32[8,64] fusion(x), kind=kLoop, calls=inner
  ROOT d = f32[8,32] dot(s, y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY main {
  x = f32[64,64] parameter(0)
  y = f32[64,32] parameter(1)
  ROOT f = f32[8,32] fusion(x, y), kind=kOutput, calls=outer
}
"""
    (op,) = cost_module(parse(text)).ops
    assert op.traffic.reads == (8 * 64 * 4, 64 * 32 * 4)
    assert op.cost.work == Cost(2 * 8 * 32 * 64, 0, 64 * 64)
    assert {(part.computation, part.instruction.opcode) for part in op.fused} == {
        ("inner", "tanh"),
        ("inner", "slice"),
        ("outer", "dot"),
    }


def test_an_interior_without_its_operands_is_refused_by_name():
    text = """HloModule m

fused {
  a = f32[64] parameter(0)
  ROOT b = f32[64] dynamic-update-slice()
}

ENTRY main {
  a = f32[64] parameter(0)
  ROOT f = f32[64] fusion(a), kind=kLoop, calls=fused
}
"""
    with pytest.raises(HloParseError, match="2 operands of 'dynamic-update-slice'"):
        parse(text)
