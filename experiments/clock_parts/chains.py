"""Instruction-level parallelism by experiment: the same multiply-adds on one core, as one chain or as many."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from experiments.clock_parts.phases import caller

LINKS = 512  # multiply-adds an element: more than a core looks ahead over, or chains of neighbours would overlap
CHAINS = (1, 2, 4, 8, 16, 32)
_ELEMENTS = 4096  # 16 KiB: in the L1 cache
_TURNS = 300


@dataclass(frozen=True)
class Chains:
    """What a core made of multiply-adds.

    `latency` is cycles of one that waits for the one before it; `rates` are multiply-adds a cycle by the number of
    independent chains that the same work is cut into.
    """

    latency: float
    rates: dict[int, float]

    @property
    def best(self) -> float:
        """The most multiply-adds a cycle."""
        return max(self.rates.values())

    @property
    def gained(self) -> float:
        """How many times faster the best is than one chain of vectors: instruction-level parallelism."""
        return self.best / self.rates[1]

    @property
    def in_flight(self) -> float:
        """Multiply-adds that are under way at once: rate x latency, lanes of vectors and instructions alike."""
        return self.best * self.latency


def measure_chains(hertz: float, runs: int) -> Chains:
    """Measures one core of this machine; `hertz` is its clock."""
    x = jax.ShapeDtypeStruct((_ELEMENTS,), jnp.float32)
    rates = {}
    for count in CHAINS:
        seconds = _seconds(_turns(_sums(count)), x, runs)
        rates[count] = _TURNS * _ELEMENTS * LINKS / (seconds * hertz)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    # The difference of two lengths: what a turn of the loop costs besides is in both.
    more, less = (_seconds(_turns(lambda x, n=n: _chain(x, n * LINKS)), scalar, runs) for n in (3, 1))
    each = (more - less) / 2 if more > less else more / 3  # on a machine too busy to tell the two apart
    return Chains(each * hertz / (_TURNS * LINKS), rates)


def _chain(x: jax.Array, links: int) -> jax.Array:
    for _ in range(links):
        x = x * 0.999 + 0.001
    return x


def _sums(count: int) -> Callable[[jax.Array], jax.Array]:
    """LINKS multiply-adds an element as `count` chains that do not wait for one another, summed by pairs at the end."""

    def work(x: jax.Array) -> jax.Array:
        ends = [_chain(x * (1 + n / 64), LINKS // count) for n in range(count)]
        while len(ends) > 1:
            ends = [a + b for a, b in zip(ends[::2], ends[1::2], strict=True)]
        return ends[0]

    return work


def _turns(work: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: lax.fori_loop(0, _TURNS, lambda _, x: work(x), x)


def _seconds(function: Callable[[jax.Array], jax.Array], x: jax.ShapeDtypeStruct, runs: int) -> float:
    """Seconds of the fastest run, which tells most of what a core can do: XLA does not share out so small ones."""
    call = caller(jax.jit(function).lower(x).compile(), (x,))
    call()
    return min(call()[0] for _ in range(max(3, runs)))
