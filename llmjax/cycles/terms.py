"""The named terms of a chip's physics: what each means, and the range that a data sheet and a ruler allow it.

A card gives a term as a figure with its source; of one that it does not give, `typical` stands. Shares are of the
card's own peaks, bandwidths and links, so that no term can promise more than the data sheet. No JAX import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmjax.cycles.device import Device, Figure


@dataclass(frozen=True, slots=True)
class Term:
    """A term: unit ("s", "cycles" or "share"), the least and the most that is physical, what most chips have."""

    unit: str
    low: float
    high: float
    typical: float
    means: str

    def holds(self, value: float | None) -> bool:
        """Whether a value is inside the range, not at an end of it; 0 may be where nothing is less."""
        margin = 1e-3 * (self.high - self.low)
        return value is not None and (
            value == self.low == 0 or self.low + min(margin, self.low) <= value <= self.high - margin
        )


def _kernels() -> dict[str, Term]:
    return {
        "host.start": Term("s", 1e-6, 3e-5, 6e-6, "from the host's call to the first kernel of a program"),
        "product.start": Term("s", 5e-7, 8e-6, 2.5e-6, "a matrix product's kernel in a CUDA graph: gap, start and end"),
        "product.share": Term("share", 0.3, 1.0, 0.77, "sustained share of the matrix unit's peak"),
        "product.step": Term("cycles", 32, 2000, 180, "least time of one step of 128 bytes along k"),
        "product.split": Term("s", 0.0, 8e-6, 2e-6, "joining the parts of a product that is split along k"),
        "product.bandwidth": Term("share", 0.4, 1.0, 0.84, "sustained share of bandwidth while a product reads"),
        "simt.share": Term("share", 0.2, 1.0, 0.75, "products on the vector unit (float32 in full): share of its peak"),
        "simt.step": Term("cycles", 32, 4000, 600, "least time of one step of 128 bytes along k on the vector unit"),
        "simt.bandwidth": Term("share", 0.3, 1.0, 0.8, "share of bandwidth while the vector unit multiplies"),
        "prompt.start": Term("s", 2e-6, 3e-5, 1e-5, "fused attention over sequences: gap, start and end of a kernel"),
        "prompt.share": Term("share", 0.2, 1.0, 0.6, "fused attention over sequences: share of the matrix unit's peak"),
        "prompt.softmax": Term("share", 0.1, 1.0, 0.45, "fused attention over sequences: share of exponentials' rate"),
        "prompt.block": Term("s", 1e-7, 1e-5, 1.7e-6, "fused attention over sequences: least time of 128 queries"),
        "prompt.bandwidth": Term("share", 0.1, 1.0, 0.3, "fused attention over sequences: share of bandwidth"),
        "decode.start": Term("s", 2e-6, 3e-5, 1e-5, "fused attention of one query: gap, start and end of a kernel"),
        "decode.block": Term("s", 1e-7, 2e-5, 3e-6, "fused attention of one query: least time of a row and head"),
        "decode.bandwidth": Term("share", 0.3, 1.0, 0.87, "fused attention of one query: share of bandwidth"),
        "stream.start": Term("s", 5e-7, 8e-6, 1.8e-6, "an elementwise kernel in a CUDA graph: gap, start and end"),
        "stream.bandwidth": Term("share", 0.4, 1.0, 0.86, "elementwise kernels' share of bandwidth"),
        "reduce.bandwidth": Term("share", 0.2, 1.0, 0.7, "share of bandwidth of reductions, softmax and norms"),
        "transpose.bandwidth": Term("share", 0.1, 1.0, 0.6, "share of bandwidth of what is put in another order"),
        "gather.bandwidth": Term("share", 0.1, 1.0, 0.5, "share of bandwidth of lookups and sorts"),
        "vector.share": Term("share", 0.1, 1.0, 0.5, "share of the vector peak that is not fused multiply-adds"),
    }


TYPICAL = "typical of chips, not measured of this one"
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")


def _collectives() -> dict[str, Term]:
    found: dict[str, Term] = {}
    for name in COLLECTIVES:
        found[f"{name}.start"] = Term("s", 1e-7, 4e-5, 5e-6, f"{name}: fixed time")
        found[f"{name}.hop"] = Term("s", 0.0, 1e-5, 1e-6, f"{name}: time for each device that takes part")
        found[f"{name}.bandwidth"] = Term("share", 0.02, 1.0, 0.8, f"{name}: sustained share of the link")
    found["collective.ramp"] = Term("exponent", 0.3, 3.0, 0.6, "how latency and transfer add up: p of a p-norm")
    found["collective.contention"] = Term(
        "exponent", 0.0, 2.5, 0.0, "bandwidth falls as (2 / devices)^this: 0 on a switch, above 1 on shared PCIe"
    )
    # NCCL's kernels take SMs and main memory's bandwidth from what runs beside them: products were measured 30 to 40%
    # slower on H100 (PyTorch's pull request 179937, 2026).
    found["collective.beside"] = Term(
        "share", 0.4, 1.0, 0.74, "how fast kernels are while a collective moves bytes beside them"
    )
    return found


def _cores() -> dict[str, Term]:
    return {
        "host.start": Term("s", 1e-6, 1e-4, 1e-5, "from the host's call to the first op of a program"),
        "op.start": Term("s", 5e-8, 5e-6, 3e-7, "between two ops of a program"),
        "product.scale": Term("factor", 0.5, 2.0, 1.0, "measured over the compiler's cycles, of matrix products"),
        "vector.scale": Term("factor", 0.5, 2.0, 1.0, "measured over the compiler's cycles, of all else"),
        "product.share": Term("share", 0.3, 1.0, 0.83, "share of the matrix unit's peak, where the compiler is silent"),
        "vector.share": Term("share", 0.1, 1.0, 0.5, "share of the vector peak, where the compiler is silent"),
        "hbm.bandwidth": Term("share", 0.4, 1.0, 0.85, "sustained share of the main memory's bandwidth"),
        "ici.start": Term("s", 1e-7, 5e-5, 5e-6, "a collective: fixed time"),
        "ici.hop": Term("s", 1e-7, 5e-6, 1e-6, "a collective: time for each device along an axis"),
        "ici.bandwidth": Term("share", 0.2, 1.0, 0.85, "a collective: sustained share of the links it runs on"),
        "network.bandwidth": Term(
            "share", 0.1, 1.0, 0.33, "between slices: sustained share of the data centre's network"
        ),
    }


TERMS: Mapping[str, Mapping[str, Term]] = {"gpu": {**_kernels(), **_collectives()}, "tpu": _cores()}


def figure(device: Device, name: str) -> Figure:
    """A term as the card gives it, else the typical one."""
    given = device.terms.get(name)
    return given or Figure(TERMS[device.kind][name].typical, "estimate", TYPICAL)


def value(device: Device, name: str) -> float:
    """A term's number."""
    return figure(device, name).value


def beside(device: Device) -> float:
    """How fast kernels are while a collective moves beside them, as a share; TPUs' links take nothing of theirs."""
    return value(device, "collective.beside") if device.kind == "gpu" and device.terms else 1.0


def values(device: Device) -> dict[str, float]:
    """All terms of the chip's kind by name."""
    return {name: value(device, name) for name in TERMS.get(device.kind, ())}
