"""A live progress bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Shows how a run goes; a context manager."""

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._bar: Any = None
        self._task: Any = None
        self._text, self._dev = "", ""
        self._next_line = 0.0
        self._started, self._first = time.perf_counter(), done
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
            )
            self._task = self._bar.add_task("train", total=total, completed=done, text="")

    def __enter__(self) -> "Display":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def update(self, phase: str, done: int, figures: dict[str, Any]) -> None:
        """Shows the figures of the step that makes `done` steps."""
        text = (
            f"loss {figures['loss']:.3f} acc {figures['accuracy']:.3f}{self._dev} "
            f"{figures['tokens_per_second']:,.0f} tok/s MFU {100 * figures['mfu']:.0f}%"
        )
        if self._bar is not None:
            self._bar.update(self._task, description=phase, completed=done, text=text)
            return
        now = time.perf_counter()
        if now >= self._next_line:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            left = (now - self._started) / max(1, done - self._first) * (self._total - done)
            print(f"{phase} step {done}/{self._total}  {text}  ETA {left // 60:.0f}:{left % 60:02.0f}", flush=True)

    def evaluated(self, done: int, accuracy: float, loss: float, best: bool) -> None:
        """Shows a dev evaluation."""
        self._dev = f" dev {accuracy:.3f}"
        self.say(f"step {done}: dev accuracy {accuracy:.4f}, dev loss {loss:.4f}{'  (best so far)' if best else ''}")
