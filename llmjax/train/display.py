"""A live progress bar on a terminal, a plain line now and then elsewhere."""

import itertools
import statistics
import sys
import time
from collections import deque
from typing import Any

from llmjax.train.task import Evaluated

_SECONDS_BETWEEN_LINES = 10.0
_STEPS, _FEWEST = 64, 3  # steps whose pace counts at most, and at least


class Clock:
    """Tells how long a run still takes by its last steps alone: the first ones wait for the compiler."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._seen: deque[tuple[int, float]] = deque(maxlen=_STEPS)

    def left(self, done: int, now: float) -> str:
        """Returns minutes and seconds (hours, minutes and seconds from an hour on) after the step that makes `done`.

        "-:--" where too few steps were seen. A step counts the median of the last ones: compiling for another length,
        or an evaluation, is no step.
        """
        self._seen.append((done, now))
        pace = [(b - a) / max(1, n - m) for (m, a), (n, b) in itertools.pairwise(self._seen)]
        if len(pace) < _FEWEST:
            return "-:--"
        left = round(statistics.median(pace) * (self._total - done))
        hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Display:
    """Shows how a run goes; a context manager."""

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._bar: Any = None
        self._task: Any = None
        self._text, self._dev = "", ""
        self._next_line = 0.0
        self._clock = Clock(total)
        if sys.stdout.isatty():
            from rich.progress import Progress, TextColumn
            from rich.table import Column

            # One line whose end, the least of it, is cut where the terminal is narrow.
            line = TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            )
            self._bar = Progress(line)
            self._task = self._bar.add_task(f"step {done}/{total}", total=total, completed=done)

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
        now = time.perf_counter()
        left = self._clock.left(done, now)
        text = (
            f"loss {figures['loss']:.3f} acc {figures['accuracy']:.3f}{self._dev} "
            f"{figures['tokens_per_second']:,.0f} tok/s MFU {100 * figures['mfu']:.0f}%"
        )
        if self._bar is not None:
            line = f"{phase} {done}/{self._total} ETA {left}  {text}"
            self._bar.update(self._task, description=line, completed=done)
            return
        if now >= self._next_line:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            print(f"{phase} step {done}/{self._total}  {text}  ETA {left}", flush=True)

    def evaluated(self, step: int, found: Evaluated, best: bool) -> None:
        """Shows an evaluation on dev."""
        self._dev = f" {found.brief}"
        first, *more = found.text.splitlines()
        self.say("\n".join([f"step {step}: {first}{'  (best so far)' if best else ''}", *more]))
