"""Where a run's figures go: `metrics.jsonl`, TensorBoard events and, when asked, Weights & Biases."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmjax.files import atomic_write

FILE = "metrics.jsonl"


def rewind(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drops from a JSONL file the lines that `keep` refuses, and whatever a killed process left unfinished."""
    if not path.exists():
        return
    lines = []
    for line in path.read_text("utf-8", "replace").splitlines(keepends=True):
        try:
            kept = line.endswith("\n") and keep(json.loads(line))
        except ValueError:
            kept = False
        if kept:
            lines.append(line)
    atomic_write(path, "".join(lines))


class MetricsLog:
    """Writes one record a step to every sink; a context manager.

    A record is one JSON object a line: `step`, `phase`, the figures, and under `timing` all that depends on the clock,
    so that two runs of the same config have equal lines but for that one key.

    Args:
        workdir: the run's folder.
        step: the step that the run goes on from; later events of an earlier try are hidden in TensorBoard.
        wandb: whether to send the figures to Weights & Biases too.
        settings: the run's config, for Weights & Biases.
    """

    def __init__(
        self, workdir: str | Path, step: int = 0, wandb: bool = False, settings: Mapping[str, Any] | None = None
    ):
        self._file = (Path(workdir) / FILE).open("a", encoding="utf-8")
        self._board = _Board(workdir, step + 1)
        self._wandb = _start_wandb(workdir, settings or {}) if wandb else None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a record. Line and event reach the operating system at once, so a killed process loses none."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        step, phase = record["step"], record["phase"]
        figures = {**record, **record.get("timing", {})}
        figures = {f"{phase}/{name}": value for name, value in figures.items() if isinstance(value, float)}
        self._board.write(figures, step)
        if self._wandb is not None:
            self._wandb.log(figures, step=step)

    def sync(self) -> None:
        """Waits until the lines are on the disk."""
        os.fsync(self._file.fileno())


class _Board:
    """TensorBoard's event file, written at once: `SummaryWriter` hands events to a thread, and a kill loses them."""

    def __init__(self, workdir: str | Path, purge_step: int) -> None:
        with _without_torch():
            from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self._event = Event
        self._writer = EventsWriter(str(Path(workdir) / "events"))
        log = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=purge_step, wall_time=time.time(), session_log=log))
        self._writer.flush()

    def write(self, figures: Mapping[str, float], step: int) -> None:
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writer.write_event(self._event(step=step, wall_time=time.time(), summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


@contextmanager
def _without_torch() -> Iterator[None]:
    """Hides PyTorch from an import that would bring it in where it is installed: tensorboardX's, in seconds."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        if absent:
            del sys.modules["torch"]


def _start_wandb(workdir: str | Path, settings: Mapping[str, Any]) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        print(
            "Weights & Biases was asked for and is not installed (pip install wandb): going on without", file=sys.stderr
        )
        return None
    return wandb.init(project="llmjax", dir=str(workdir), config=dict(settings))
