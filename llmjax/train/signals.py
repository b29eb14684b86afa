"""Ctrl-C and SIGTERM: the first asks the loop to stop after its step, the second ends the process at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, `received` is the signal that asked the run to stop, or None; a context manager.

    Python runs signal handlers between two instructions of the main thread, which may be minutes away while XLA
    compiles. So a second thread reads each signal from a pipe that the operating system's handler writes, and ends the
    process on the second. Outside the main thread, where Python handles no signals, the class does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in _NUMBERS}
        threading.Thread(target=_watch, args=(read_end,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._write_end)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = number


def _watch(read_end: int) -> None:
    seen = 0
    while number := os.read(read_end, 1):
        if number[0] not in _NUMBERS:
            continue
        seen += 1
        if seen > 1:
            os._exit(128 + number[0])
        os.write(2, b"\nstopping after this step; press Ctrl-C again to exit at once\n")
    os.close(read_end)
