"""Cost reports -> the files that people open: cost.html, and trace.json where there are times."""

import json
from collections.abc import Sequence
from pathlib import Path

from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.report import CostReport
from llmjax.report.html import Program, to_html
from llmjax.report.trace import to_trace


def write_views(folder: Path, reports: Sequence[tuple[str, str, CostReport]], title: str) -> list[str]:
    """Writes the page of (label, title, report), a tab each, and their trace; returns the names of the files.

    Raises:
        UserError: the folder cannot be written.
    """
    programs = [Program(label, json.loads(report.to_json()), report.text, told) for label, told, report in reports]
    trace = to_trace({program.label: program.cost for program in programs})
    files = {"cost.html": to_html(programs, title)} | ({"trace.json": trace} if trace else {})
    try:
        for name, text in files.items():
            atomic_write(folder / name, text)
    except OSError as error:
        raise UserError(f"workdir {str(folder)!r} cannot be written: {error.strerror or error}.") from error
    return list(files)
