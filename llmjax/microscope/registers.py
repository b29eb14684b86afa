"""Which registers an x86 instruction writes, and how often a loop runs: its counter's start, steps and end.

XLA knows its shapes, so most of its loops count from a constant to a constant. Pure functions of x86.py's values.
"""

from __future__ import annotations

import re

from llmjax.microscope.x86 import Function, Instruction, Loop, dominators, loops

_LEGACY = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
_BASES = {f"r{name}": name for name in _LEGACY} | {f"e{name}": name for name in _LEGACY}
_BASES |= {name: name for name in _LEGACY} | {f"{name}l": name for name in ("si", "di", "bp", "sp")}
_BASES |= {f"{letter}{half}": f"{letter}x" for letter in "abcd" for half in "lh"}
_NUMBERED = re.compile(r"(r(?:8|9|1[0-5]))[dwb]?")
_NUMBER = re.compile(r"\$?(-?)(0x[0-9a-f]+|\d+)")
_DISPLACED = re.compile(r"(-?(?:0x[0-9a-f]+|\d+))?\((%\w+)\)")
# Mnemonics that read all their operands and write none but the flags.
_READERS = ("cmp", "test", "bt", "push", "nop", "prefetch", "ucomis", "vucomis", "comis", "vcomis", "j", "vptest")
# Flags survive these.
_FLAGLESS = ("mov", "lea", "v", "nop", "push", "pop", "kmov", "kand", "prefetch", "not", "set", "cmov")
_HOPS = 12
# A jump out of the loop where it would not go round again.
_OPPOSITE = {"je": "jne", "jz": "jne", "jae": "jb", "jge": "jl", "ja": "jbe", "jg": "jle"}
_OPPOSITE |= {"jbe": "ja", "jle": "jg", "jb": "jae", "jl": "jge"}
_SUFFIXES = "bwlq"


def register(operand: str) -> str | None:
    """The name of a general register whatever part of it is meant: %esi, %rsi, %sil are "si". None of anything else."""
    name = operand.removeprefix("%")
    if not operand.startswith("%"):
        return None
    numbered = _NUMBERED.fullmatch(name)
    return numbered[1] if numbered else _BASES.get(name)


def written(instruction: Instruction) -> frozenset[str]:
    """General registers that an instruction writes; after a call, all that the callee may change."""
    name, operands = instruction.mnemonic, instruction.operands
    if name.startswith("call"):
        return frozenset({"ax", "cx", "dx", "si", "di", "r8", "r9", "r10", "r11"})
    found = {"ax", "dx"} if name.startswith(("div", "idiv", "cq", "cltd", "rdtsc")) else set()
    found |= {"ax", "dx"} if name.startswith(("mul", "imul")) and len(operands) == 1 else set()
    found |= {"cx", "si", "di"} if name.startswith("rep") else set()
    if operands and not name.startswith(_READERS):
        changed = operands if name.startswith(("xchg", "xadd")) else operands[-1:]
        found |= {base for operand in changed if (base := register(operand))}
    return frozenset(found)


def number(operand: str) -> int | None:
    """The value of an immediate: `$0xc00` -> 3072."""
    m = _NUMBER.fullmatch(operand) if operand.startswith("$") else None
    return (-1 if m[1] else 1) * int(m[2], 0) if m else None


def step(instruction: Instruction, name: str) -> int | None:
    """By how much an instruction that writes register `name` changes it; None where that is no constant."""
    mnemonic, operands = instruction.mnemonic, instruction.operands
    base = _plain(mnemonic)
    if base in ("inc", "dec") and len(operands) == 1:
        return 1 if base == "inc" else -1
    if base in ("add", "sub") and len(operands) == 2 and register(operands[1]) == name:
        value = number(operands[0])
        return None if value is None else value if base == "add" else -value
    if base == "lea" and len(operands) == 2 and (m := _DISPLACED.fullmatch(operands[0])) and register(m[2]) == name:
        return int(m[1] or "0", 0)
    return None


def constant(
    function: Function, block: int, before: int, name: str, of: tuple[Loop, ...], hops: int = _HOPS
) -> int | None:
    """The value that register `name` has before instruction `before` of a block, None where it is not one constant."""
    if hops <= 0:
        return None
    for place in range(before - 1, -1, -1):
        i = function.blocks[block].instructions[place]
        if name not in written(i):
            continue
        base, operands = _plain(i.mnemonic), i.operands
        if base in ("xor", "sub") and len(operands) == 2 and operands[0] == operands[1]:
            return 0
        if base in ("mov", "movabs") and len(operands) == 2:
            value = number(operands[0])
            source = register(operands[0])
            return constant(function, block, place, source, of, hops - 1) if value is None and source else value
        change = step(i, name)
        start = None if change is None else constant(function, block, place, name, of, hops - 1)
        return None if start is None or change is None else start + change
    entered = function.blocks[block].before
    for loop in of:
        if loop.header == block:
            if any(name in written(i) for b in loop.blocks for i in function.blocks[b].instructions):
                return None
            entered = tuple(b for b in entered if b not in loop.blocks)
    values = {constant(function, b, len(function.blocks[b].instructions), name, of, hops - 1) for b in entered}
    return values.pop() if len(values) == 1 else None


def trip_count(function: Function, loop: Loop, of: tuple[Loop, ...] | None = None) -> int | None:
    """How often a loop's body runs each time the loop is entered, None where the code does not say.

    It is known for a loop with one latch that ends in a conditional jump, back or out, on a register that starts from a
    constant, is changed by constants only, once a turn, and is compared with a constant.
    """
    of = loops(function) if of is None else of
    if len(loop.latches) != 1:
        return None
    (latch,) = loop.latches
    code = function.blocks[latch].instructions
    jump = code[-1]
    leaves = len(function.blocks[latch].after) == 2 and jump.target != function.blocks[loop.header].address
    again = _OPPOSITE.get(jump.mnemonic) if leaves else jump.mnemonic
    if again is None or jump.mnemonic.startswith("jmp"):
        return None
    place = next((k for k in range(len(code) - 2, -1, -1) if not code[k].mnemonic.startswith(_FLAGLESS)), None)
    if place is None:
        return None
    test, compared = code[place], _compared(code[place])
    if compared is None:
        return None
    name, other = compared
    writes = [(b, k, i) for b in loop.blocks for k, i in enumerate(function.blocks[b].instructions)]
    writes = [(b, k, i) for b, k, i in writes if name in written(i)]
    always = dominators(function.blocks)[latch]
    steps = [step(i, name) for _, _, i in writes]
    if not writes or None in steps or any(b not in loop.own or b not in always for b, _, _ in writes):
        return None
    limit = number(other)
    if limit is None:
        source = register(other)
        entry = _entry(function, loop)
        if (
            source is None
            or entry is None
            or any(source in written(i) for b in loop.blocks for i in _code(function, b))
        ):
            return None
        limit = constant(function, entry, len(_code(function, entry)), source, of)
    entry = _entry(function, loop)
    start = None if entry is None else constant(function, entry, len(_code(function, entry)), name, of)
    if start is None or limit is None:
        return None
    late = sum(s for (b, k, i), s in zip(writes, steps, strict=True) if s and b == latch and k > place)
    return _turns(again, start - late, sum(s for s in steps if s), limit, test.mnemonic)


def workgroups(function: Function) -> int:
    """How many parts XLA cuts a kernel into, for several threads: 1 where its code has no such test.

    A kernel gets its part's number through its first argument; one that was cut tests at its start that the number is
    none too large: `movq 8(%rdi), %rax; movq (%rax), %rcx; cmpq $1, %rcx; ja END` has 2 parts. Of several such numbers
    (a grid) the parts multiply.
    """
    found = 1
    loaded: dict[str, str] = {}
    for place, i in enumerate(function.instructions):
        following = function.instructions[place + 1] if place + 1 < len(function.instructions) else None
        if _plain(i.mnemonic) == "cmp" and len(i.operands) == 2 and following and following.mnemonic == "ja":
            value, name = number(i.operands[0]), register(i.operands[1])
            if value is not None and name and loaded.get(name) == "number":
                found *= value + 1
        elif i.is_jump:
            break
        else:
            meaning = ""
            if _plain(i.mnemonic) == "mov" and len(i.operands) == 2:
                if i.operands[0] == "0x8(%rdi)":
                    meaning = "numbers"
                elif (m := _DISPLACED.fullmatch(i.operands[0])) and loaded.get(register(m[2]) or "") == "numbers":
                    meaning = "number"
            loaded |= dict.fromkeys(written(i), meaning)
    return found


def _plain(mnemonic: str) -> str:
    """A mnemonic without the suffix of its size: `addq` -> `add`."""
    if mnemonic in ("movabsq", "movabs"):
        return "movabs"
    known = ("add", "sub", "inc", "dec", "lea", "mov", "cmp", "test", "xor")
    return next((base for base in known if mnemonic in (base, *(base + s for s in _SUFFIXES))), mnemonic)


def _compared(test: Instruction) -> tuple[str, str] | None:
    """The register that a test is about and the operand it is compared with: `cmp` by AT&T tests the second operand."""
    base, operands = _plain(test.mnemonic), test.operands
    if base == "cmp" and len(operands) == 2 and (name := register(operands[1])):
        return name, operands[0]
    if base == "test" and len(operands) == 2 and operands[0] == operands[1] and (name := register(operands[0])):
        return name, "$0"
    if base in ("inc", "dec", "add", "sub") and (name := register(operands[-1])):
        return name, "$0"
    return None


def _entry(function: Function, loop: Loop) -> int | None:
    outside = [b for b in function.blocks[loop.header].before if b not in loop.blocks]
    return outside[0] if len(outside) == 1 else None


def _code(function: Function, block: int) -> tuple[Instruction, ...]:
    return function.blocks[block].instructions


def _turns(jump: str, start: int, change: int, limit: int, test: str) -> int | None:
    """The smallest k >= 1 for which the jump is not taken at start + k * change."""
    if not change:
        return None
    distance = limit - start
    if jump in ("jne", "jnz"):
        return distance // change if distance % change == 0 and distance // change >= 1 else None
    if jump in ("jb", "jl", "jnae", "jnge", "jc") and change > 0:
        turns = -(-distance // change)
    elif jump in ("jbe", "jle", "jna", "jng") and change > 0:
        turns = distance // change + 1
    elif jump in ("ja", "jg", "jnbe", "jnle") and change < 0:
        turns = -(-distance // change)
    elif jump in ("jae", "jge", "jnb", "jnl", "jnc") and change < 0:
        turns = distance // change + 1
    else:
        return None
    unsigned = jump in ("jb", "jbe", "jnae", "jna", "jc", "ja", "jnbe", "jae", "jnb", "jnc")
    if unsigned and (limit < 0 or start + change < 0 or not _plain(test).startswith("cmp")):
        return None
    return max(1, turns)
