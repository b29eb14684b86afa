"""Formulas of a GPU's kernels: seconds of products, attention and collectives.

A matrix product is cut into tiles that run on the streaming multiprocessors (SMs) in whole waves, and along k into 1
to 16 parts whose sums are joined afterwards. Each step of 128 bytes along k takes its share of the peak, and never
less than a latency. Work and traffic overlap (times.POWER); of all tiles and splits the fastest is taken, which is
what a tuned library does (NVIDIA, "Matrix Multiplication Background User's Guide": tiles, waves and their tails).

They are written in operators alone, so that a fit hands in whole arrays of sizes and an op its floats: reading HLO text
needs no NumPy. No JAX import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmjax.cycles.times import POWER

Amount = Any  # a float, or an array of floats
_SIDES = ((16, 64), (16, 128), (32, 64), (32, 128), (64, 64), (64, 128), (64, 256), (128, 128), (128, 256))
TILES = tuple(dict.fromkeys((*_SIDES, *((n, m) for m, n in _SIDES))))
SPLITS = (1, 2, 4, 8, 16)
STEP = 128  # bytes along k that a tile takes at a time: 64 of bfloat16 (CUTLASS's default threadblock shapes)


class Unit(NamedTuple):
    """What computes a product: how many SMs, FLOP/s of all, clock in Hz, bytes of an element, sustained bytes/s."""

    sms: float
    peak: float
    clock: float
    width: float
    bandwidth: float


class Times(NamedTuple):
    """Seconds of kernels, and of their parts."""

    total: Amount
    compute: Amount
    memory: Amount
    overhead: Amount


def product(
    sizes: tuple[Amount, Amount, Amount, Amount], memory: Amount, unit: Unit, terms: Mapping[str, float], kind: str
) -> Times:
    """Seconds of matrix products.

    Args:
        sizes: rows, columns, terms of a sum and batch, one of each a product.
        memory: seconds that reading and writing once takes at the sustained bandwidth.
        kind: "product" (the matrix unit) or "simt" (the vector unit): whose share and step.
    """
    m, n, k, batch = sizes
    depth = STEP / unit.width
    best = None
    for tile_m, tile_n in TILES:
        tiles = _ceil(m / tile_m) * _ceil(n / tile_n) * batch
        a_step = 2 * tile_m * tile_n * depth / (unit.peak * terms[f"{kind}.share"] / unit.sms)
        a_step = max(a_step, terms[f"{kind}.step"] / unit.clock)
        for split in SPLITS:
            parts = 8 * split * m * n * batch / unit.bandwidth if split > 1 else 0.0  # written and read in float32
            overhead = terms["product.start"] + (terms["product.split"] if split > 1 else 0.0)
            compute = _ceil(tiles * split / unit.sms) * _ceil(k / split / depth) * a_step
            found = _overlapped(overhead, compute, memory + parts)
            fits = split == 1 or split * depth <= k
            best = found if best is None else _either((found.total < best.total) & fits, found, best)
    assert best is not None
    return best


def prompt(
    work: tuple[Amount, Amount, Amount, Amount],
    memory: Amount,
    unit: Unit,
    functions: float,
    terms: Mapping[str, float],
) -> Times:
    """Seconds of fused attention over whole sequences (FlashAttention and its likes), by blocks of queries.

    Args:
        work: FLOPs of the products, exponentials, blocks of 128 queries of all heads (contracted.ROWS; 0 = more than
            enough for all SMs), and the longest block's work over the mean one's: 2 under a causal mask.
        memory: seconds that queries, keys, values and results take at the sustained bandwidth.
        functions: exponentials a second.
    """
    flops, exponentials, blocks, longest = work
    matrix = flops / (unit.peak * terms["prompt.share"])
    softmax = exponentials / (functions * terms["prompt.softmax"])
    shared = (matrix**POWER + softmax**POWER) ** (1 / POWER)
    alone = (blocks > 0) * shared * longest * unit.sms / _larger(blocks, 1)
    compute = _larger(shared + blocks / unit.sms * terms["prompt.block"], alone + terms["prompt.block"])
    return _overlapped(terms["prompt.start"], compute, memory)


def decode(blocks: Amount, memory: Amount, unit: Unit, terms: Mapping[str, float]) -> Times:
    """Seconds of fused attention of one query a row: the cache is read, by a block for each row and head of keys.

    Args:
        blocks: rows times heads of keys; 0 = unknown.
        memory: seconds that keys and values take at the sustained bandwidth.
    """
    return _overlapped(terms["decode.start"], blocks / unit.sms * terms["decode.block"], memory)


def collective(
    name: str, group: Amount, wire: Amount, link: float, terms: Mapping[str, float]
) -> tuple[Amount, Amount]:
    """Seconds of collectives, and what of them is latency.

    Args:
        name: one of terms.COLLECTIVES.
        group: devices that take part.
        wire: bytes that one device sends (cost/collectives.py: the ring's).
        link: bytes/s of one device, one way.
    """
    latency = terms[f"{name}.start"] + terms[f"{name}.hop"] * group
    crowd = (2 / _larger(group, 2)) ** terms["collective.contention"]
    transfer = wire / (link * terms[f"{name}.bandwidth"] * crowd)
    ramp = terms["collective.ramp"]
    return (latency**ramp + transfer**ramp) ** (1 / ramp), latency


def _overlapped(start: float, compute: Amount, memory: Amount) -> Times:
    return Times(start + (compute**POWER + memory**POWER) ** (1 / POWER), compute, memory, start)


def _ceil(x: Amount) -> Amount:
    return -(-x // 1)


def _larger(a: Amount, b: Amount) -> Amount:
    return a * (a >= b) + b * (a < b)


def _either(first: Amount, one: Times, other: Times) -> Times:
    """Of each product the first times where `first` says so, the other ones elsewhere."""
    if isinstance(first, bool):
        return one if first else other
    return Times(*(a * first + b * (1 - first) for a, b in zip(one, other, strict=True)))
