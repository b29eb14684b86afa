"""Disassembly -> functions, blocks and loops."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.microscope.x86 import dominators, loops, own_instructions, parse, split_operands
from tests.microscope.code import NESTED, PARTS, chained


def test_a_function_with_the_bytes_of_its_code():
    (function,) = parse(NESTED)
    assert function.name == "scale" and len(function.instructions) == 18
    fma = function.instructions[7]
    assert (fma.address, fma.mnemonic) == (0x25, "vfmadd213ps")
    assert fma.operands == ("(%rcx,%rdi,4)", "%ymm1", "%ymm0")
    assert function.instructions[11].target == 0x20 and function.instructions[-1].operands == ()


def test_without_bytes_and_several_functions():
    functions = parse(NESTED + PARTS)
    assert [f.name for f in functions] == ["scale", "add_part"]
    assert functions[1].instructions[0].text == "movq 0x8(%rdi), %rax"


def test_relocations_titles_and_prefixes():
    text = (
        "0000000000000000 <f>:\n       0: 48 b8 00 00 00 00\tmovabsq\t$0x0, %rax\n"
        "\t\t0000000000000002:  R_X86_64_64\t.lrodata.cst4\n       a: f3 48 ab\trep\t\tstosq\t%rax, %es:(%rdi)\n"
        "       d: ff d0\tcallq\t*%rax\n"
    )
    (function,) = parse(text)
    assert [i.mnemonic for i in function.instructions] == ["movabsq", "rep stosq", "callq"]
    assert function.instructions[2].target is None


def test_nested_loops():
    (function,) = parse(NESTED)
    outer, inner = loops(function)
    assert (outer.depth, inner.depth, inner.parent, outer.parent) == (1, 2, 0, None)
    assert inner.innermost and not outer.innermost and inner.blocks < outer.blocks
    assert own_instructions(function, inner, (outer, inner))[0].mnemonic == "vmovups"
    own = [i.mnemonic for i in own_instructions(function, outer, (outer, inner))]
    assert own == ["xorl", "nop", "incq", "cmpq", "jne"]
    outside = own_instructions(function, None, (outer, inner))
    assert [i.mnemonic for i in outside] == ["pushq", "movq", "xorl", "nopl", "xorl", "popq", "retq"]


def test_two_back_edges_to_one_header_are_one_loop():
    (function,) = parse(chained({0: (0, True), 1: (0, True), 2: (None, False)}))
    (loop,) = loops(function)
    assert loop.latches == (0, 1) and loop.blocks == {0, 1}


def test_no_loop_and_no_code():
    (function,) = parse(chained({0: (1, True), 1: (None, False)}))
    assert loops(function) == () and parse("nothing here") == ()


def test_operands():
    assert split_operands("(%rax,%rsi,4), %ymm0 {%k1} {z}") == ("(%rax,%rsi,4)", "%ymm0 {%k1} {z}")
    assert split_operands("") == ()


GRAPHS = st.integers(2, 7).flatmap(
    lambda n: st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, n - 1)), st.booleans()), min_size=n, max_size=n
    ).map(lambda rows: dict(enumerate(rows)))
)


def _ways(blocks, without):
    seen, stack = set(), [] if without == 0 else [0]
    while stack:
        block = stack.pop()
        if block not in seen and block != without:
            seen.add(block)
            stack += blocks[block].after
    return seen


@given(GRAPHS)
def test_loops_of_any_graph(edges):
    (function,) = parse(chained(edges))
    blocks = function.blocks
    above = dominators(blocks)
    reached = _ways(blocks, None)
    for a, b in itertools.product(range(len(blocks)), repeat=2):
        # a dominates b exactly where b cannot be reached without a
        assert (a in above[b]) == (b in reached and b not in _ways(blocks, a))
    found = loops(function)
    for loop in found:
        assert all(loop.header in above[block] for block in loop.blocks)
        assert all(loop.header in blocks[latch].after for latch in loop.latches)
        assert set(loop.own) <= loop.blocks and loop.header in loop.own
    for a, b in itertools.combinations(found, 2):  # natural loops are nested or apart
        assert not a.blocks & b.blocks or a.blocks <= b.blocks or b.blocks <= a.blocks
    back = {(block, to) for block in reached for to in blocks[block].after if to in above[block]}
    assert {(latch, loop.header) for loop in found for latch in loop.latches} == back


@given(st.text(alphabet="0123456789abcdef:<>()%$, \t\njmpcallretxv#{}", max_size=400))
def test_any_text_is_read_or_passed_over(text):
    for function in parse("0000000000000000 <f>:\n" + text):
        assert sum(len(block.instructions) for block in function.blocks) == len(function.instructions)
        assert sum(map(len, [own_instructions(function, None, loops(function))])) <= len(function.instructions)


@pytest.mark.parametrize("mnemonic", ["jmp", "retq", "ud2"])
def test_what_ends_a_way(mnemonic):
    text = f"0000000000000000 <f>:\n  0:      \t{mnemonic}\t\n  8:      \tincq\t%rax\n"
    (function,) = parse(text)
    assert function.blocks[0].after == ()
