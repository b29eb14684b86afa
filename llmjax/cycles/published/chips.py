"""Names of hardware as people write them -> a card, and what differs from it. No JAX import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmjax.cycles.device import Device, Figure, load_device

# What a name must hold, the card, the target that its programs are compiled for, and bytes/s of main memory where they
# are not the card's. The first that fits counts. Bandwidths: NVIDIA's data sheets of these boards.
_NAMES: tuple[tuple[str, str, str, float], ...] = (
    (r"A100.*(40 ?GB)|a100_40gb", "gpu:a100", "gpu:a100", 1555e9),
    (r"A100.*80 ?GB.*PCIe", "gpu:a100", "gpu:a100", 1935e9),
    (r"A100", "gpu:a100", "gpu:a100", 0.0),
    (r"H200", "gpu:h200", "gpu:h200", 0.0),
    (r"H100", "gpu:h100", "gpu:h100", 0.0),
    (r"B200", "gpu:b200", "gpu:b200", 0.0),
    (r"V100", "gpu:v100", "gpu:t4", 0.0),
    (r"\bT4\b|Tesla.T4", "gpu:t4", "gpu:t4", 0.0),
    (r"L40S", "gpu:l40s", "gpu:l4", 0.0),
    (r"\bL4\b|NVIDIA.L4", "gpu:l4", "gpu:l4", 0.0),
    (r"TPU ?v?7x|Ironwood", "tpu:tpu7x", "tpu:tpu7x:2x2x1", 0.0),
    (r"v6e", "tpu:v6e", "tpu:v6e:2x2", 0.0),
    (r"v5p", "tpu:v5p", "tpu:v5p:2x2x1", 0.0),
    (r"v5e|v5lite", "tpu:v5e", "tpu:v5e:2x2", 0.0),
    (r"TPU ?v4", "tpu:v4", "tpu:v4:2x2x1", 0.0),
    (r"TPU ?v3", "tpu:v3", "tpu:v3:2x2", 0.0),
    (r"TPU ?v2", "tpu:v2", "tpu:v2:2x2", 0.0),
)
DEVICES_A_CHIP: Mapping[str, int] = {"tpu:v2": 2, "tpu:v3": 2, "tpu:tpu7x": 2}


@dataclass(frozen=True)
class Chip:
    """A chip of a table: its card, what its programs are compiled for, and how many JAX devices it has."""

    device: Device
    target: str
    devices: int = 1


def chip_of(hardware: str) -> Chip | None:
    """The chip that a name means, None where there is no card of it."""
    for pattern, card, target, bandwidth in _NAMES:
        if re.search(pattern, hardware, re.IGNORECASE):
            device = load_device(card)
            if bandwidth:
                main = device.main_memory
                figure = Figure(bandwidth, "datasheet", f"NVIDIA's data sheet of the {hardware}")
                device = replace(device, memory=(*device.memory[:-1], replace(main, bandwidth=figure)))
            return Chip(device, target, DEVICES_A_CHIP.get(card, 1))
    return None
