"""Formulas of a GPU's kernels, over whole arrays of sizes at once: seconds of products, attention and collectives.

A matrix product is cut into tiles that run on the streaming multiprocessors (SMs) in whole waves, and along k into 1
to 16 parts whose sums are joined afterwards. Each step of 128 bytes along k takes its share of the peak, and never
less than a latency. Work and traffic overlap (times.POWER); of all tiles and splits the fastest is taken, which is
what a tuned library does (NVIDIA, "Matrix Multiplication Background User's Guide": tiles, waves and their tails).

No JAX import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from llmjax.cycles.times import POWER

Array = np.ndarray
_SIDES = ((16, 64), (16, 128), (32, 64), (32, 128), (64, 64), (64, 128), (64, 256), (128, 128), (128, 256))
TILES = tuple(dict.fromkeys((*_SIDES, *((n, m) for m, n in _SIDES))))
SPLITS = (1, 2, 4, 8, 16)
STEP = 128  # bytes along k that a tile takes at a time: 64 of bfloat16 (CUTLASS's default threadblock shapes)
_WAYS = np.array([(m, n, split) for m, n in TILES for split in SPLITS], float)


class Unit(NamedTuple):
    """What computes a product: how many SMs, FLOP/s of all, clock in Hz, bytes of an element, sustained bytes/s."""

    sms: float
    peak: float
    clock: float
    width: float
    bandwidth: float


class Times(NamedTuple):
    """Seconds of kernels, and of their parts."""

    total: Array
    compute: Array
    memory: Array
    overhead: Array


def product(
    sizes: tuple[Array, Array, Array, Array], memory: Array, unit: Unit, terms: Mapping[str, float], kind: str
) -> Times:
    """Seconds of matrix products.

    Args:
        sizes: rows, columns, terms of a sum and batch, one of each a product.
        memory: seconds that reading and writing once takes at the sustained bandwidth.
        kind: "product" (the matrix unit) or "simt" (the vector unit): whose share and step.
    """
    m, n, k, batch = (np.asarray(size, float)[:, None] for size in sizes)
    tile_m, tile_n, split = (_WAYS[None, :, column] for column in range(3))
    waves = np.ceil(np.ceil(m / tile_m) * np.ceil(n / tile_n) * split * batch / unit.sms)
    depth = STEP / unit.width
    steps = np.ceil(k / split / depth)
    a_step = 2 * tile_m * tile_n * depth / (unit.peak * terms[f"{kind}.share"] / unit.sms)
    compute = waves * steps * np.maximum(a_step, terms[f"{kind}.step"] / unit.clock)
    parts = np.where(split > 1, 8 * split * m * n * batch / unit.bandwidth, 0.0)  # written and read in float32
    moved = np.asarray(memory, float)[:, None] + parts
    overhead = terms["product.start"] + terms["product.split"] * (split > 1)
    total = overhead + (compute**POWER + moved**POWER) ** (1 / POWER)
    total = np.where((split > 1) & (split * depth > k), np.inf, total)
    best = np.argmin(total, axis=1)
    row = np.arange(len(best))
    overheads = np.broadcast_to(overhead, total.shape)
    return Times(total[row, best], compute[row, best], moved[row, best], overheads[row, best])


def prompt(
    work: tuple[Array, Array, Array, Array], memory: Array, unit: Unit, functions: float, terms: Mapping[str, float]
) -> Times:
    """Seconds of fused attention over whole sequences (FlashAttention and its likes), by blocks of queries.

    Args:
        work: FLOPs of the products, exponentials, blocks of 128 queries of all heads (contracted.ROWS; 0 = more than
            enough for all SMs), and the longest block's work over the mean one's: 2 under a causal mask.
        memory: seconds that queries, keys, values and results take at the sustained bandwidth.
        functions: exponentials a second.
    """
    flops, exponentials, blocks, longest = (np.asarray(each, float) for each in work)
    matrix = flops / (unit.peak * terms["prompt.share"])
    softmax = exponentials / (functions * terms["prompt.softmax"])
    shared = (matrix**POWER + softmax**POWER) ** (1 / POWER)
    alone = np.where(blocks > 0, shared * longest * unit.sms / np.maximum(blocks, 1), 0.0)
    compute = np.maximum(shared + blocks / unit.sms * terms["prompt.block"], alone + terms["prompt.block"])
    return _overlapped(terms["prompt.start"], compute, memory)


def decode(blocks: Array, memory: Array, unit: Unit, terms: Mapping[str, float]) -> Times:
    """Seconds of fused attention of one query a row: the cache is read, by a block for each row and head of keys.

    Args:
        blocks: rows times heads of keys; 0 = unknown.
        memory: seconds that keys and values take at the sustained bandwidth.
    """
    compute = np.asarray(blocks, float) / unit.sms * terms["decode.block"]
    return _overlapped(terms["decode.start"], compute, memory)


def _overlapped(start: float, compute: Array, memory: Array) -> Times:
    memory = np.asarray(memory, float)
    return Times(start + (compute**POWER + memory**POWER) ** (1 / POWER), compute, memory, np.full_like(compute, start))


def collective(name: str, group: Array, wire: Array, link: float, terms: Mapping[str, float]) -> tuple[Array, Array]:
    """Seconds of collectives, and what of them is latency.

    Args:
        name: one of terms.COLLECTIVES.
        group: devices that take part.
        wire: bytes that one device sends (cost/collectives.py: the ring's).
        link: bytes/s of one device, one way.
    """
    group, wire = np.asarray(group, float), np.asarray(wire, float)
    latency = terms[f"{name}.start"] + terms[f"{name}.hop"] * group
    crowd = (2 / np.maximum(group, 2)) ** terms["collective.contention"]
    transfer = wire / (link * terms[f"{name}.bandwidth"] * crowd)
    ramp = terms["collective.ramp"]
    return (latency**ramp + transfer**ramp) ** (1 / ramp), latency
