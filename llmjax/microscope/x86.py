"""x86 code as text -> frozen values: functions, basic blocks, natural loops. Pure: no tool is run here.

The text is what `llvm-objdump -d` prints in AT&T syntax: `  1f: 48 ff c6   incq %rsi`, the bytes of the machine code or
not. Loops are natural loops (Aho, Lam, Sethi, Ullman: Compilers, 9.6): a branch back to a block that dominates it, and
all that reaches the branch without passing that block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_HEAD = re.compile(r"^([0-9a-f]{8,16}) <(.+)>:\s*$")
_LINE = re.compile(r"^\s*([0-9a-f]+):\s*((?:[0-9a-f]{2}\s)*)\s*(\S.*)?$")
_TARGET = re.compile(r"^(?:0x)?([0-9a-f]+) <")
_PREFIXES = frozenset(("lock", "rep", "repe", "repz", "repne", "repnz", "bnd", "notrack", "data16", "cs", "ds", "ss"))
_NO_FALL = ("jmp", "ret", "ud2", "hlt")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its address in the function's section, mnemonic and operands (AT&T: the last is written).

    `target` is the address that a direct branch goes to, None otherwise.
    """

    address: int
    mnemonic: str
    operands: tuple[str, ...] = ()
    target: int | None = None

    @property
    def text(self) -> str:
        """As an assembler reads it, a branch's target as it was printed."""
        return f"{self.mnemonic} {', '.join(self.operands)}".rstrip()

    @property
    def is_jump(self) -> bool:
        """Whether it is a jump, conditional or not; a call is none."""
        return self.mnemonic.startswith(("j", "loop"))

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction may run after it."""
        return not self.mnemonic.startswith(_NO_FALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A basic block: instructions that run one after the other. `after` and `before` are places of other blocks."""

    instructions: tuple[Instruction, ...]
    after: tuple[int, ...] = ()
    before: tuple[int, ...] = ()

    @property
    def address(self) -> int:
        return self.instructions[0].address


@dataclass(frozen=True)
class Function:
    """A function of an object file and its blocks, the first of which is entered."""

    name: str
    instructions: tuple[Instruction, ...]
    blocks: tuple[Block, ...] = field(repr=False, default=())


@dataclass(frozen=True, slots=True)
class Loop:
    """A natural loop: places of its blocks, inner loops' included.

    `header` is entered from outside, `latches` jump back to it; `parent` is the place of the loop around it in the list
    of loops, None where there is none; `depth` is 1 for an outermost loop. `own` are the blocks that are in no inner
    loop, `innermost` says that these are all.
    """

    header: int
    latches: tuple[int, ...]
    blocks: frozenset[int]
    parent: int | None
    depth: int
    own: tuple[int, ...]

    @property
    def innermost(self) -> bool:
        return len(self.own) == len(self.blocks)


def parse(text: str) -> tuple[Function, ...]:
    """Reads the functions of a disassembly, in order. What is no instruction (titles, relocations) is passed over."""
    found: list[tuple[str, list[Instruction]]] = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            found.append((head[2], []))
        elif found and (m := _LINE.match(line)) and m[3]:
            instruction = _instruction(int(m[1], 16), m[3])
            if instruction is not None:
                found[-1][1].append(instruction)
    return tuple(function(name, instructions) for name, instructions in found if instructions)


def function(name: str, instructions: Sequence[Instruction]) -> Function:
    """A function of its instructions, with its blocks."""
    return Function(name, tuple(instructions), _blocks(instructions))


def _instruction(address: int, text: str) -> Instruction | None:
    text = text.partition("#")[0].strip()
    words = text.split(None, 1)
    if not words or words[0].startswith((".", "<")) or words[0].endswith(":"):
        return None
    prefixes = []
    while words[0] in _PREFIXES and len(words) > 1:
        prefixes.append(words[0])
        words = words[1].split(None, 1)
    mnemonic, rest = " ".join([*prefixes, words[0]]), words[1] if len(words) > 1 else ""
    if mnemonic.startswith(("R_X86_64", "R_386", "IMAGE_REL")):
        return None
    operands = split_operands(rest)
    target = None
    if words[0].startswith(("j", "call", "loop")) and len(operands) == 1 and (m := _TARGET.match(operands[0])):
        target = int(m[1], 16)
    return Instruction(address, mnemonic, operands, target)


def split_operands(text: str) -> tuple[str, ...]:
    """Operands between commas that stand in no parentheses: `(%rax,%rsi,4), %ymm0` are two."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += (char in "({<") - (char in ")}>")
        if char == "," and depth <= 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return tuple(part for part in (*parts, text[start:].strip()) if part)


def _blocks(instructions: Sequence[Instruction]) -> tuple[Block, ...]:
    if not instructions:
        return ()
    places = {i.address: place for place, i in enumerate(instructions)}
    jumps = [(place, i) for place, i in enumerate(instructions) if i.is_jump or not i.falls_through]
    starts = {0} | {places[i.target] for _, i in jumps if i.target in places} | {place + 1 for place, _ in jumps}
    edges = [*sorted(place for place in starts if place < len(instructions)), len(instructions)]
    number = {start: k for k, start in enumerate(edges[:-1])}
    after: list[tuple[int, ...]] = []
    for end in edges[1:]:
        last = instructions[end - 1]
        targets = [number[places[last.target]]] if last.is_jump and last.target in places else []
        targets += [number[end]] if last.falls_through and end in number else []
        after.append(tuple(dict.fromkeys(targets)))
    before = [tuple(k for k, to in enumerate(after) if block in to) for block in range(len(after))]
    spans = zip(edges, edges[1:], after, before, strict=False)
    return tuple(Block(tuple(instructions[a:b]), to, of) for a, b, to, of in spans)


def dominators(blocks: Sequence[Block]) -> tuple[frozenset[int], ...]:
    """For every block those that each way from the first to it passes, itself too; nothing for unreachable ones."""
    reached, stack = {0}, [0]
    while stack:
        for block in blocks[stack.pop()].after:
            if block not in reached:
                reached.add(block)
                stack.append(block)
    everything = frozenset(reached)
    found = {block: everything for block in reached} | {0: frozenset({0})}
    changed = True
    while changed:
        changed = False
        for block in sorted(reached - {0}):
            before = [found[b] for b in blocks[block].before if b in reached]
            new = frozenset.intersection(*before) | {block}
            changed, found[block] = changed or new != found[block], new
    return tuple(found.get(block, frozenset()) for block in range(len(blocks)))


def loops(function: Function) -> tuple[Loop, ...]:
    """The natural loops of a function, an outer one before those in it; back edges to one header make one loop."""
    blocks = function.blocks
    above = dominators(blocks) if blocks else ()
    latches: dict[int, list[int]] = {}
    for block, doms in enumerate(above):
        for to in blocks[block].after:
            if to in doms:
                latches.setdefault(to, []).append(block)
    bodies = {header: _body(blocks, header, ends, above) for header, ends in latches.items()}
    order = sorted(bodies, key=lambda header: (-len(bodies[header]), header))
    order = sorted(order, key=lambda header: sum(header in body for body in bodies.values()))
    found: list[Loop] = []
    for header in order:
        around = [k for k, loop in enumerate(found) if header in loop.blocks]
        parent = max(around, key=lambda k: found[k].depth, default=None)
        depth = 1 if parent is None else found[parent].depth + 1
        inside = [bodies[h] for h in order if h != header and h in bodies[header]]
        own = tuple(sorted(b for b in bodies[header] if not any(b in body for body in inside)))
        found.append(Loop(header, tuple(latches[header]), bodies[header], parent, depth, own))
    return tuple(found)


def _body(
    blocks: Sequence[Block], header: int, latches: Sequence[int], above: Sequence[frozenset[int]]
) -> frozenset[int]:
    body, stack = {header}, [latch for latch in latches if latch != header]
    body |= set(stack)
    while stack:
        for block in blocks[stack.pop()].before:
            if block not in body and above[block]:
                body.add(block)
                stack.append(block)
    return frozenset(body)


def own_instructions(function: Function, loop: Loop | None, of: Sequence[Loop]) -> tuple[Instruction, ...]:
    """The instructions of a loop that are in no inner one; of the function (None), those in no loop."""
    if loop is not None:
        return tuple(i for block in loop.own for i in function.blocks[block].instructions)
    inside = frozenset().union(*(each.blocks for each in of))
    return tuple(i for k, block in enumerate(function.blocks) if k not in inside for i in block.instructions)
