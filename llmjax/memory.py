"""Whether a job fits in memory, said from shapes before anything large is made."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from llmjax.errors import UserError


def available() -> int | None:
    """Returns the bytes that are free on the device, or on the machine where that is the CPU; None if unknown."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    free = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        with contextlib.suppress(OSError, ValueError):  # a container's own limit
            group = Path("/sys/fs/cgroup")
            limit = int((group / "memory.max").read_text())
            free = min(free, limit - int((group / "memory.current").read_text()))
    return free


def require(needed: Mapping[str, int], remedy: str, free: int | None) -> None:
    """Raises `UserError` where the sum of `needed`, bytes by what they are for, is more than `free` (None = unknown).

    `remedy` says what the user may change.
    """
    total = sum(needed.values())
    if free is not None and total > free:
        parts = ", ".join(f"{what} {size_text(count)}" for what, count in needed.items() if count)
        raise UserError(f"not enough memory: {size_text(total)} needed, {size_text(free)} free: {parts}; {remedy}.")


def sharing(devices: int) -> int:
    """Returns how many of so many devices have one memory between them: a host's simulated ones do."""
    return min(devices, jax.local_device_count()) if jax.default_backend() == "cpu" else 1


def held_bytes(tree: Any) -> int:
    """Returns the bytes of a tree that one memory holds: of arrays that lie on a mesh, the parts of its devices."""

    def held(leaf: Any) -> int:
        sharding = getattr(leaf, "sharding", None)
        if sharding is None:
            return tree_bytes(leaf)
        part = jax.ShapeDtypeStruct(sharding.shard_shape(leaf.shape), leaf.dtype)
        return tree_bytes(part) * sharing(sharding.num_devices)

    return sum(map(held, jax.tree.leaves(tree)))


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of a tree's arrays, or of abstract values' shapes."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape") and hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * getattr(leaf.dtype, "itemsize", 4) for leaf in leaves)


def size_text(count: int) -> str:
    """Returns bytes as people read them: "1.50 GiB", "20.0 MiB"."""
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
