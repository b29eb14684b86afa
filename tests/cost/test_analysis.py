"""Calls and branches, however many and however deep."""

import pytest

from llmjax.cost import Cost, cost_module
from llmjax.errors import UserError
from llmjax.hlo.parser import parse


def chain(depth: int, calls: int) -> str:
    """`depth` computations, each of which calls the next `calls` times; the last is a tanh of 8 numbers."""
    text = "HloModule chain\n\nf0 {\n x = f32[8] parameter(0)\n ROOT y = f32[8] tanh(x)\n}\n"
    for n in range(1, depth):
        lines = [" c0 = f32[8] parameter(0)"]
        lines += [
            f" {'ROOT ' * (k == calls)}c{k} = f32[8] call(c{k - 1}), to_apply=f{n - 1}" for k in range(1, calls + 1)
        ]
        text += f"\nf{n} {{\n" + "\n".join(lines) + "\n}\n"
    return text + f"\nENTRY main {{\n x = f32[8] parameter(0)\n ROOT y = f32[8] call(x), to_apply=f{depth - 1}\n}}\n"


def test_nesting_costs_no_stack():
    assert cost_module(parse(chain(5000, 1))).totals == Cost(0, 0, 8, 32, 32)


def test_repeated_calls_are_counted_once_each_but_analysed_once():
    found = cost_module(parse(chain(61, 2)))
    (op,) = found.ops
    assert op.count == 2**60
    assert found.totals.transcendentals == 8 * 2**60


BRANCHES = """HloModule branches

cheap {
  x = f32[64] parameter(0)
  ROOT y = f32[64] negate(x)
}

dear {
  x = f32[64] parameter(0)
  a = f32[64] tanh(x)
  ROOT y = f32[64] multiply(a, a)
}

ENTRY main {
  i = s32[] parameter(0)
  x = f32[64] parameter(1)
  ROOT y = f32[64] conditional(i, x, x, x), branch_computations={cheap, dear, cheap}
}
"""


def test_the_dearest_branch_counts():
    found = cost_module(parse(BRANCHES))
    assert found.totals == Cost(0, 64, 64, 256 * 3, 256 * 2)
    (branches,) = found.conditionals
    assert (branches.weights, branches.stated) == ((0, 1, 0), False)


def test_stated_probabilities():
    found = cost_module(parse(BRANCHES), branch_probabilities={"y": [0.5, 0.25, 0.25]})
    assert found.totals.vector_flops == 0.75 * 64 + 0.25 * 64
    assert found.totals.transcendentals == 0.25 * 64
    certain = cost_module(parse(BRANCHES), branch_probabilities={"y": [1, 0, 0]})
    assert certain.totals == Cost(0, 64, 0, 256, 256)


def test_wrong_probabilities():
    module = parse(BRANCHES)
    for weights in ([1.0], [0.5, 0.6, 0.7], [-1, 1, 1]):
        with pytest.raises(UserError, match="probabilities"):
            cost_module(module, branch_probabilities={"y": weights})
    with pytest.raises(UserError, match="no such conditional"):
        cost_module(module, branch_probabilities={"x": [1, 0, 0]})


def test_totals_are_the_sum_of_ops():
    found = cost_module(parse(chain(4, 3)))
    assert sum((op.cost * op.count for op in found.ops), Cost()) == found.totals
    assert found.coverage == 1 and not found.lower_bound
