"""What the instructions of a loop do: loads, stores, arithmetic by kind, and how many numbers one instruction takes.

An instruction has one kind; one whose operand lies in memory is a load (or a store) besides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from llmjax.microscope.x86 import Instruction

KINDS = ("fma", "arithmetic", "conversion", "shuffle", "move", "mask", "integer", "branch", "call")

_FMA = re.compile(r"vf(n?m(add|sub)|maddsub|msubadd)\d*(ps|pd|ss|sd|ph|sh|pbf16)|vdpbf16ps|vp(dpbusd|dpwssd)s?")
_FLOAT = re.compile(
    r"v?(add|sub|mul|div|min|max|sqrt|rsqrt\w*|rcp\w*|round|rndscale|range|reduce|scalef|getexp|getmant|fixupimm"
    r"|addsub|hadd|hsub|dp|and|andn|or|xor|u?comi|cmp\w*?)(ps|pd|ss|sd|ph|sh)"
)
_SHUFFLE = re.compile(
    r"v?(shuf|perm|unpck|broadcast|pbroadcast|insert|pinsr|extract|pextr|blend|pblend|movs[hl]dup|movddup|movhl|movlh"
    r"|movh|movl|pshuf|palignr|align|punpck|pack|compress|expand|gather|scatter|pgather|pscatter|valign).*"
)
_CONVERSION = re.compile(r"v?(cvt|pmov[sz]x|pmov[a-z]{2}$).*")
_MOVE = re.compile(r"v?(mov|lddqu|maskmov|pmaskmov).*|push\w?|pop\w?|cmov\w+|kmov.*|xchg\w?")
_MASK = re.compile(r"k(and|or|xor|xnor|not|add|test|ortest|shift|unpck).*")
_VECTOR_INTEGER = re.compile(r"v?p[a-z].*")
_NOTHING = re.compile(r"nop\w?|endbr.*|vzero.*|prefetch.*|lea\w?|data16.*")
_REGISTER = re.compile(r"%([xyz]mm)\d+")
_BITS = {"xmm": 128, "ymm": 256, "zmm": 512}
_ELEMENT = {"ps": 32, "ss": 32, "pd": 64, "sd": 64, "ph": 16, "sh": 16, "b": 8, "w": 16, "d": 32, "q": 64}
_MEMORY = re.compile(r"\(|^[%\w]+s:|^-?(0x)?[0-9a-f]+$")
_STACK = re.compile(r"\(%r[sb]p")
_READS_ONLY = ("cmp", "test", "ucomis", "vucomis", "comis", "vcomis", "bt", "vptest", "vtestp", "push", "j", "call")


@dataclass(frozen=True, slots=True)
class Mix:
    """The instructions of one iteration by kind, and the memory operands among them.

    `kinds` has those of KINDS that occur. `bits` is the width of the registers that most arithmetic is in, `lanes` how
    many numbers of `element_bits` one such instruction takes (1: it is scalar). `flops` are floating-point operations
    of one iteration, a multiply-add as two. `loaded` and `stored` are bytes, without those of the stack.
    """

    instructions: int
    kinds: dict[str, int]
    loads: int
    stores: int
    loaded: int
    stored: int
    bits: int
    lanes: int
    element_bits: int
    flops: int
    fused: int

    @property
    def vector(self) -> bool:
        """Whether most arithmetic takes several numbers at once."""
        return self.lanes > 1

    @property
    def register(self) -> str:
        """The name of the registers: xmm, ymm or zmm; "" where there is no arithmetic on them."""
        return next((name for name, bits in _BITS.items() if bits == self.bits), "")


def kind(instruction: Instruction) -> str:
    """What an instruction is, one of KINDS; "" for what does nothing and for address arithmetic's `lea`, "integer"."""
    name = instruction.mnemonic
    if name.startswith("call"):
        return "call"
    if instruction.is_jump or not instruction.falls_through:
        return "branch"
    if _NOTHING.fullmatch(name):
        return "integer" if name.startswith("lea") else ""
    if _FMA.fullmatch(name):
        return "fma"
    for pattern, found in ((_CONVERSION, "conversion"), (_SHUFFLE, "shuffle")):
        if pattern.fullmatch(name) and not name.startswith(("movl", "movsl")):
            return found
    if _MOVE.fullmatch(name):
        return "move"
    if _MASK.fullmatch(name):
        return "mask"
    if _FLOAT.fullmatch(name) or (_VECTOR_INTEGER.fullmatch(name) and _bits(instruction)):
        return "arithmetic"
    return "integer"


def mix(instructions: Iterable[Instruction]) -> Mix:
    """Counts the instructions of an iteration."""
    kinds: Counter[str] = Counter()
    loads = stores = loaded = stored = flops = fused = 0
    widths: Counter[tuple[int, int, int]] = Counter()
    total = 0
    for i in instructions:
        total += 1
        what = kind(i)
        if what:
            kinds[what] += 1
        reads, writes = memory(i)
        loads, stores = loads + reads, stores + writes
        size = _touched(i) if (reads or writes) and not _STACK.search(" ".join(i.operands)) else 0
        loaded, stored = loaded + size * reads, stored + size * writes
        shape = _shape(i) if what in ("fma", "arithmetic") else None
        if shape is not None:
            widths[shape] += 1
            is_float = what == "fma" or bool(re.search(r"(ps|pd|ss|sd|ph|sh)$", i.mnemonic))
            logic = re.match(r"v?(and|andn|or|xor|cmp|u?comi)", i.mnemonic)
            flops += 0 if logic or not is_float else shape[1] * (2 if what == "fma" else 1)
            fused += shape[1] if what == "fma" else 0
    bits, lanes, element = max(widths, key=lambda w: (widths[w], w), default=(0, 1, 0))
    ordered = {name: kinds[name] for name in KINDS if kinds[name]}
    return Mix(total, ordered, loads, stores, loaded, stored, bits, lanes, element, flops, fused)


def memory(instruction: Instruction) -> tuple[bool, bool]:
    """Whether an instruction loads from memory, and whether it stores to it."""
    name, operands = instruction.mnemonic, instruction.operands
    if not operands or _NOTHING.fullmatch(name) or instruction.is_jump:
        return False, False
    places = [k for k, operand in enumerate(operands) if _in_memory(operand)]
    if not places:
        return False, False
    last = len(operands) - 1
    if last not in places or len(operands) == 1 or name.startswith(_READS_ONLY):
        return not name.startswith("pop"), False
    plain = _MOVE.fullmatch(name) or name.startswith(("vextract", "extract", "vpextr", "pextr", "vcvt", "set", "vpmov"))
    compressed = name.startswith(("vcompress", "vpcompress", "vpscatter", "vscatter", "vmovh", "vmovl"))
    return not (plain or compressed), True


def _in_memory(operand: str) -> bool:
    return not operand.startswith(("$", "%", "*%")) and bool(_MEMORY.search(operand))


def _bits(instruction: Instruction) -> int:
    return max((_BITS[name] for name in _REGISTER.findall(" ".join(instruction.operands))), default=0)


def _shape(instruction: Instruction) -> tuple[int, int, int] | None:
    """(bits of the register, lanes, bits of an element) of arithmetic on vector registers."""
    bits, name = _bits(instruction), instruction.mnemonic
    if not bits:
        return None
    suffix = re.search(r"(ps|pd|ss|sd|ph|sh)$", name)
    if suffix and suffix[1] in ("ss", "sd", "sh"):
        return 128, 1, _ELEMENT[suffix[1]]
    element = _ELEMENT[suffix[1]] if suffix else _ELEMENT.get(name[-1], 32)
    return bits, bits // element, element


def _touched(instruction: Instruction) -> int:
    """Bytes of an instruction's memory operand."""
    name, bits = instruction.mnemonic, _bits(instruction)
    scalar = re.search(r"(ss|sd|sh)$", name)
    if scalar and bits:
        return _ELEMENT[scalar[1]] // 8
    if bits and (m := re.search(r"broadcast(ss|sd|b|w|d|q)$", name)):
        return _ELEMENT[m[1]] // 8
    if bits and (m := re.search(r"\{1to(\d+)\}", " ".join(instruction.operands))):
        return bits // 8 // int(m[1])
    if bits and name in ("vmovd", "movd", "vmovq", "movq"):
        return 4 if name.endswith("d") else 8
    if bits and (m := re.match(r"v?pmov[sz]x([bwd])([wdq])$", name)):
        return bits // 8 * _ELEMENT[m[1]] // _ELEMENT[m[2]]
    if bits and (m := re.search(r"extract[fi](?:32x4|64x2|128)$", name)):
        return 16
    if bits:
        return bits // 8
    return {"b": 1, "w": 2, "l": 4, "q": 8}.get(name[-1:], 8)
