"""What the process's memory allocator does with what is freed."""

import ctypes
import sys

# The parameters of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Has glibc's malloc keep what is freed for the next to ask, instead of giving it back to the system.

    XLA asks for the room of a program's temporary values at each run. Pages that the system hands out anew are zeroed
    and mapped one at a time, when they are first touched: up to a quarter of a training step of GPT-2 on a CPU. One
    arena, since only the main one can grow to any size; it is to be called before other threads start.

    Returns:
        whether the allocator took it: False where it is not glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])
