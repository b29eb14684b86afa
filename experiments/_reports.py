"""Cost reports -> the files that people open: cost.html, and trace.json where there are times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmjax.analysis import Analysis
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.report.html import program_of, to_html
from llmjax.report.trace import to_trace

if TYPE_CHECKING:
    from llmjax.models.config import ModelConfig


def write_views(folder: Path, reports: Sequence[tuple[str, str, Analysis]], title: str) -> list[str]:
    """Writes the page of (label, title, report), a tab each, and their trace; returns the names of the files.

    Raises:
        UserError: the folder cannot be written.
    """
    programs = [program_of(report, label, told) for label, told, report in reports]
    trace = to_trace({program.label: program.cost for program in programs})
    files = {"cost.html": to_html(programs, title)} | ({"trace.json": trace} if trace else {})
    try:
        for name, text in files.items():
            atomic_write(folder / name, text)
        if not trace:
            (folder / "trace.json").unlink(missing_ok=True)  # of an earlier program, which had times
    except OSError as error:
        raise UserError(f"workdir {str(folder)!r} cannot be written: {error.strerror or error}.") from error
    return list(files)


def write_classifier_page(folder: Path, model: ModelConfig, length: int) -> None:
    """Writes what a classifier of that shape computes for one text of `length` tokens, on the device that is here.

    Raises:
        UserError: the folder cannot be written, or the compiled program is not understood.
    """
    from experiments._phases import PHASES  # JAX is not needed where HLO is analysed
    from experiments._programs import Shape
    from llmjax.analyser import analyze

    shape = Shape("trained", "classify", 1, length, 0, model.dtype)
    phase = PHASES[shape.phase](model, shape)
    report = analyze(phase.function, *phase.args)
    layers = f"{model.layers} layers of width {model.width}"
    title = f"classifier in {folder.parent}: {layers}, one text of {length} tokens, {model.dtype}"
    write_views(folder, [("classify", title, report)], title)
    atomic_write(folder / "cost.json", report.to_json())
