"""Ctrl-C and SIGTERM: the first asks the loop to stop after its step, the second ends the process at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopSignals:
    """While entered, `received` is the signal that asked the run to stop, or None; a context manager.

    Outside the main thread, where Python handles no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        os.write(2, b"\nstopping after this step; press Ctrl-C again to exit at once\n")
