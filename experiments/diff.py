"""Two programs -> what the second costs more or less: a table, diff.json, diff.html, and a guard for CI."""

import json
import sys
from pathlib import Path

from ml_collections import ConfigDict

from experiments._settings import values_of
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.read_cost import read_cost
from llmjax.report.diff import Diff, diff, parse_share
from llmjax.report.diff_markdown import to_markdown
from llmjax.report.diff_view import HEADS, percent, print_diff, tell, to_html
from llmjax.report.terminal import console


def run(config: ConfigDict, workdir: str) -> None:
    """Compares the configured programs; leaves with status 1 where a total grew by more than `fail_above`."""
    values = values_of(config)
    try:
        limit = parse_share(str(values["fail_above"]), "fail_above")
    except ValueError as error:
        raise UserError(f"--config.{error}") from error
    before, after = (read_cost(str(values[side]), f"--config.{side}") for side in ("before", "after"))
    found = diff(before, after)
    print_diff(found, console(), values["top"])
    folder = Path(workdir)
    title = f"{found.before['module']} before and after"
    try:
        atomic_write(folder / "diff.json", json.dumps(found.to_object(), indent=1, allow_nan=False) + "\n")
        atomic_write(folder / "diff.md", to_markdown(found))
        atomic_write(folder / "diff.html", to_html(found, title, str(values["before"]), str(values["after"])))
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    print(f"diff.json, diff.md and diff.html: {workdir}")
    if limit is not None:
        _guard(found, limit, str(values["fail_above"]).strip())


def _guard(found: Diff, limit: float, told: str) -> None:
    over = found.over(limit)
    if over:
        grown = [
            f"{HEADS[m]} {percent(c)} ({tell(found.metrics[m])(c.before)} to {tell(found.metrics[m])(c.after)})"
            for m, c in over.items()
        ]
        sys.exit(f"fail_above={told}: {', '.join(grown)}.")
    print(f"within fail_above={told}: {', '.join(HEADS[metric] for metric in found.metrics)}")
