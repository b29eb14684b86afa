"""Damage for texts: the mutations that the fuzz tests try."""

from __future__ import annotations

import random
import re

TOKENS = [
    "{", "}", "(", ")", "[", "]", '"', "\\", ",", "=", "%", "->", "<=", "/*", "*/", "//", "\n", " ", "ROOT ", "ENTRY ",
    "HloModule x", "f32[", "s4[2]{0:E(4)}", "?", "metadata={", "backend_config={", "calls=", "to_apply={",
    "window={size=",
    "constant(", "{...}", "-", "0", "99999999999999999999999", "nan", "\x00", "é", "\u2028", "FileNames\n",
    "sharding={", "replica_groups=[2,2]<=[4]T(", "b(", "T(8,128)(", "a.b-c", ":", "_",
]  # fmt: skip
_NUMBERS = ["0", "1", "2", "3", "7", "-1", "1000000", "4294967296", "9223372036854775807", "999999999999999999"]
_NUMBER_RE = re.compile(r"(?<![\w.])-?\d+(?![\w.])")
_WORD_RE = re.compile(r"(?<= )[a-z][a-z\-]+(?=\()")
_OPERANDS_RE = re.compile(r"(?<=\()[^()]*(?=\))")
_SHAPE_RE = re.compile(r"[a-z]\w*\[[\d,]*\](?:\{[^{}]*\})?")
_ATTRIBUTE_RE = re.compile(r", [a-z_\-]+=(?:\{[^{}]*\}|[^,\s{}]+)")


def mutate(text: str, rng: random.Random) -> str:
    """One to four small wounds: of bytes, tokens, lines and brackets."""
    for _ in range(rng.randint(1, 4)):
        pos = rng.randrange(len(text) + 1)
        match rng.randrange(10):
            case 0:  # a byte more
                text = text[:pos] + chr(rng.randrange(256)) + text[pos:]
            case 1:  # some bytes less
                text = text[:pos] + text[pos + rng.randint(1, 8) :]
            case 2:  # another byte
                text = text[:pos] + chr(rng.randrange(32, 127)) + text[pos + 1 :]
            case 3:  # a token more
                text = text[:pos] + rng.choice(TOKENS) + text[pos:]
            case 4:  # a token again and again
                text = text[:pos] + rng.choice(TOKENS) * rng.choice([2, 100, 5000]) + text[pos:]
            case 5:  # truncated
                text = text[:pos] if rng.random() < 0.5 else text[pos:]
            case 6 | 7:  # a line twice, gone, or elsewhere
                lines = text.split("\n")
                line = rng.randrange(len(lines))
                there = rng.randrange(len(lines))
                taken = lines[line] if rng.random() < 0.5 else lines.pop(line)
                if rng.random() < 0.7:
                    lines.insert(there, taken)
                text = "\n".join(lines)
            case 8:  # a stretch moved
                length = rng.randint(1, 300)
                there = rng.randrange(len(text) + 1)
                text = text[:there] + text[pos : pos + length] + text[there:]
            case 9:  # one kind of bracket or quote all over
                a, b = rng.sample(['"', "{", "}", "(", ")", ",", "=", " ", "\n"], 2)
                text = text.replace(a, b, rng.choice([1, 50]))
    return text


def distort(text: str, rng: random.Random) -> str:
    """One to three changes after which a text still parses, as often as not: of numbers, opcodes, operands, shapes."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice((_NUMBER_RE, _NUMBER_RE, _WORD_RE, _OPERANDS_RE, _SHAPE_RE, _ATTRIBUTE_RE))
        found = list(kind.finditer(text))
        if not found:
            continue
        one, other = rng.choice(found), rng.choice(found)
        if kind is _NUMBER_RE:
            new = rng.choice(_NUMBERS)
        elif kind in (_ATTRIBUTE_RE, _OPERANDS_RE) and rng.random() < 0.4:
            new = ""
        elif kind is _OPERANDS_RE and rng.random() < 0.4:
            new = ", ".join(rng.sample(one[0].split(", "), rng.randint(1, len(one[0].split(", ")))))
        else:
            new = other[0]
        text = text[: one.start()] + new + text[one.end() :]
    return text
