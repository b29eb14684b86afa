"""How often loops run, by their code."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmjax.microscope.registers import register, trip_count, workgroups, written
from llmjax.microscope.x86 import loops, parse
from tests.microscope.code import NESTED, PARTS, counted


def turns(text):
    (function,) = parse(text)
    return [trip_count(function, loop) for loop in loops(function)]


def test_nested():
    assert turns(NESTED) == [3, 8]


def test_a_limit_in_a_register_that_nobody_knows():
    assert turns(PARTS) == [None]


def test_a_limit_in_a_register_that_is_known():
    assert turns(PARTS.replace("movq	(%rdx), %rcx", "movl	$0x100, %ecx")) == [8]


HOLDS = {
    "jne": lambda a, b: a != b,
    "jl": lambda a, b: a < b,
    "jle": lambda a, b: a <= b,
    "jg": lambda a, b: a > b,
    "jge": lambda a, b: a >= b,
}


@given(
    st.integers(-40, 40),
    st.integers(-9, 9).filter(bool),
    st.integers(-90, 90),
    st.sampled_from(sorted(HOLDS)),
)
def test_turns_are_those_of_running_it(start, step, limit, jump):
    value, count = start, 0
    while count < 500:
        value, count = value + step, count + 1
        if not HOLDS[jump](value, limit):
            break
    assume(count < 500)
    (found,) = turns(counted(start, step, limit, jump))
    assert found is None or found == count
    upwards = jump in ("jne", "jl", "jle") and step > 0
    assert found == count or not (upwards and start < limit)


@pytest.mark.parametrize(
    ("start", "step", "limit", "jump", "expected"),
    [
        (-8, 8, 56, "jb", 8),  # the first test is of 0
        (0, 8, 0xC00, "jne", 384),
        (100, -1, 0, "jne", 100),
        (0, 3, 10, "jb", 4),
        (0, 3, 10, "jne", None),  # it would go round the whole of 2^64
        (-100, 8, 56, "jb", None),  # -92 is a large number to `jb`
        (0, 0, 10, "jl", None),
    ],
)
def test_counters(start, step, limit, jump, expected):
    assert turns(counted(start, step, limit, jump)) == [expected]


def test_flags_of_the_step_itself():
    text = """
0000000000000000 <f>:
   0:      	movl	$0x20, %ecx
   8:      	vaddps	(%rax), %ymm0, %ymm0
   c:      	decq	%rcx
   e:      	leaq	0x20(%rax), %rax
  10:      	jne	0x8 <f+0x8>
  14:      	retq
"""
    assert turns(text) == [32]


def test_a_loop_that_leaves_at_its_end():
    text = """
0000000000000000 <f>:
   0:      	xorl	%r14d, %r14d
   4:      	jmp	0x10 <f+0x10>
   8:      	addq	$0x80, %r14
   c:      	cmpq	$0x800, %r14
   e:      	je	0x20 <f+0x20>
  10:      	vmovups	(%rax,%r14), %ymm0
  14:      	vmovups	%ymm0, (%rdx,%r14)
  18:      	jmp	0x8 <f+0x8>
  20:      	retq
"""
    assert turns(text) == [16]


def test_a_counter_that_is_not_always_stepped():
    text = """
0000000000000000 <f>:
   0:      	xorl	%esi, %esi
   8:      	testb	%al, %al
   c:      	je	0x14 <f+0x14>
  10:      	incq	%rsi
  14:      	cmpq	$0x8, %rsi
  18:      	jne	0x8 <f+0x8>
  1c:      	retq
"""
    assert turns(text) == [None]


def test_parts():
    assert [workgroups(f) for f in parse(NESTED + PARTS)] == [1, 4]


def test_registers():
    assert {register(f"%{name}") for name in ("rsi", "esi", "si", "sil")} == {"si"}
    assert register("%r11d") == "r11" and register("%ymm1") is None and register("$1") is None
    instructions = parse(NESTED)[0].instructions
    assert written(instructions[9]) == {"di"} and written(instructions[10]) == frozenset()
