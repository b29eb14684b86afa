"""Instructions by kind, memory operands and vector width."""

import pytest

from llmjax.microscope.mix import kind, memory, mix
from llmjax.microscope.x86 import Instruction, loops, own_instructions, parse, split_operands
from tests.microscope.code import NESTED


def read(text: str) -> Instruction:
    mnemonic, _, rest = text.partition(" ")
    return Instruction(0, mnemonic, split_operands(rest))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vfmadd231ps %ymm1, %ymm2, %ymm3", "fma"),
        ("vfnmadd213ss (%rax), %xmm2, %xmm3", "fma"),
        ("vpdpbusd %ymm1, %ymm2, %ymm3", "fma"),
        ("vaddps (%rax), %ymm0, %ymm0", "arithmetic"),
        ("vcmpltps %ymm2, %ymm23, %k1", "arithmetic"),
        ("vrndscaleps $0x9, %ymm24, %ymm24", "arithmetic"),
        ("vpslld $0x17, %ymm24, %ymm24", "arithmetic"),
        ("vpternlogd $0xe0, %xmm1, %xmm0, %xmm2", "arithmetic"),
        ("vcvttps2dq %ymm24, %ymm24", "conversion"),
        ("vpmovzxwd (%rax), %ymm1", "conversion"),
        ("vbroadcastss (%rax), %ymm1", "shuffle"),
        ("vextractf128 $0x1, %ymm2, %xmm3", "shuffle"),
        ("vmovshdup %xmm1, %xmm6", "shuffle"),
        ("vmovups (%rax), %ymm1", "move"),
        ("movl (%rdx,%r13,4), %r15d", "move"),
        ("movslq (%rdi), %rdi", "move"),
        ("kmovw -0x34(%rbp), %k5", "move"),
        ("kandw %k0, %k1, %k1", "mask"),
        ("addq $0x8, %rsi", "integer"),
        ("leaq (%r14,%r14,2), %r14", "integer"),
        ("jne 0x20", "branch"),
        ("retq", "branch"),
        ("callq *%rax", "call"),
        ("nopw %cs:(%rax,%rax)", ""),
        ("vzeroupper", ""),
    ],
)
def test_kinds(text, expected):
    assert kind(read(text)) == expected


@pytest.mark.parametrize(
    ("text", "loads", "stores"),
    [
        ("vmovups (%rax), %ymm1", True, False),
        ("vmovups %ymm1, (%rax)", False, True),
        ("vaddps 0x20(%rax,%rdi,4), %ymm0, %ymm0", True, False),
        ("addq $0x1, (%rax)", True, True),
        ("cmpl $0x3, (%rax)", True, False),
        ("vextractf128 $0x1, %ymm2, (%rax)", False, True),
        ("leaq 0x20(%rax), %rax", False, False),
        ("nopl (%rax)", False, False),
        ("addq $0x8, %rsi", False, False),
        ("vaddps 0x10(%rip), %ymm0, %ymm0", True, False),
    ],
)
def test_memory(text, loads, stores):
    assert memory(read(text)) == (loads, stores)


def test_an_iteration():
    (function,) = parse(NESTED)
    of = loops(function)
    found = mix(own_instructions(function, of[1], of))
    assert found.instructions == 6
    assert found.kinds == {"fma": 1, "move": 2, "integer": 2, "branch": 1}
    assert (found.loads, found.stores, found.loaded, found.stored) == (2, 1, 64, 32)
    assert (found.register, found.lanes, found.element_bits, found.vector) == ("ymm", 8, 32, True)
    assert found.flops == 16


@pytest.mark.parametrize(
    ("text", "register", "lanes", "element", "flops"),
    [
        ("vaddss (%rax), %xmm0, %xmm1", "xmm", 1, 32, 1),
        ("vmulpd %zmm0, %zmm1, %zmm2", "zmm", 8, 64, 8),
        ("vfmadd231pd %ymm0, %ymm1, %ymm2", "ymm", 4, 64, 8),
        ("vandps %ymm0, %ymm1, %ymm2", "ymm", 8, 32, 0),
        ("vpaddb %xmm0, %xmm1, %xmm2", "xmm", 16, 8, 0),
        ("addq $0x8, %rsi", "", 1, 0, 0),
    ],
)
def test_width(text, register, lanes, element, flops):
    found = mix([read(text)])
    assert (found.register, found.lanes, found.element_bits, found.flops) == (register, lanes, element, flops)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("vbroadcastss (%rax), %ymm1", 4),
        ("vpmovzxwd (%rax), %ymm1", 16),
        ("vaddps (%rax){1to8}, %ymm1, %ymm1", 4),
        ("vmovss (%rax), %xmm1", 4),
        ("movzbl (%rax), %eax", 4),
        ("vmovups 0x20(%rsp), %ymm1", 0),  # the stack is no data of the op
    ],
)
def test_bytes(text, size):
    assert mix([read(text)]).loaded == size
