"""Hardware counters of this process's threads, through Linux's perf_event_open(2), where the machine has them.

Many virtual machines have none: then `available()` is False and nothing is counted. No JAX import.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Numbers of the kernel's interface: linux/perf_event.h, and the system call tables of the two architectures.
_SYSCALL = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _CYCLES, _INSTRUCTIONS = 0, 0, 1
_ENABLE, _DISABLE, _RESET = 0x2400, 0x2401, 0x2403
_DISABLED, _NO_KERNEL, _NO_HYPERVISOR = 1 << 0, 1 << 5, 1 << 6
_FIRST_SIZE = 64  # bytes of the structure's first version, which every kernel takes


@dataclass(frozen=True, slots=True)
class Counts:
    """Core cycles and instructions of all threads together, in user mode."""

    cycles: int
    instructions: int

    @property
    def per_cycle(self) -> float:
        """Instructions a core cycle (IPC)."""
        return self.instructions / self.cycles if self.cycles else 0.0


def available() -> bool:
    """Whether this process may count its instructions."""
    return count(lambda: None) is not None


def count(work: Callable[[], Any]) -> Counts | None:
    """Runs `work` and counts; None where there are no counters (`work` has run all the same).

    Threads that exist when it begins are counted, not those that `work` starts: run it once before.
    """
    found = read_events(work, ((_HARDWARE, _CYCLES), (_HARDWARE, _INSTRUCTIONS)))
    return Counts(*found) if found and all(found) else None


def read_events(work: Callable[[], Any], events: tuple[tuple[int, int], ...]) -> list[int] | None:
    """Runs `work` and returns the sum over threads of each (type, config) event, None where one cannot be counted."""
    opened: list[list[int]] = []
    try:
        try:
            for kind, config in events:
                opened.append([])
                for thread in os.listdir("/proc/self/task"):
                    opened[-1].append(_open(kind, config, int(thread)))
        except OSError:
            work()
            return None
        files = [file for group in opened for file in group]
        for file in files:
            fcntl.ioctl(file, _RESET, 0)
        for file in files:
            fcntl.ioctl(file, _ENABLE, 0)
        work()
        for file in files:
            fcntl.ioctl(file, _DISABLE, 0)
        return [sum(struct.unpack("Q", os.read(file, 8))[0] for file in group) for group in opened]
    finally:
        for file in (file for group in opened for file in group):
            os.close(file)


def _open(kind: int, config: int, thread: int) -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"no perf events on {platform.machine()}")
    flags = _DISABLED | _NO_KERNEL | _NO_HYPERVISOR
    attributes = struct.pack("IIQQQQQIIQ", kind, _FIRST_SIZE, config, 0, 0, 0, flags, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    file = libc.syscall(number, attributes, thread, -1, -1, 0)
    if file < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return file
