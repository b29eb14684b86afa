"""Two programs -> what the second costs more or less: a table, diff.json, diff.html, and a guard for CI."""

import json
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments._settings import values_of
from llmjax.analyser import analyze_hlo, read_hlo
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.json_file import parse_json
from llmjax.report.diff import Diff, diff, parse_share
from llmjax.report.diff_markdown import to_markdown
from llmjax.report.diff_view import HEADS, percent, print_diff, tell, to_html
from llmjax.report.export import FIGURES, SCHEMA
from llmjax.report.terminal import console
from llmjax.schema import Schema, anything, checked, flag, maybe, number, table, text, whole

# Of a cost.json what is compared (docs/cost-json.md has all of it).
_AMOUNT = number()
_FIGURES: Schema = dict.fromkeys(FIGURES, _AMOUNT)
_TIMES: Schema = dict.fromkeys(("seconds", "cycles", "measured_seconds", "measured_cycles"), maybe(_AMOUNT))
_COST: Schema = {
    "module": text(),
    "backend": maybe(text()),
    "target": maybe(text()),
    "device": maybe(table(anything())),
    "time": maybe(table(_AMOUNT)),
    "lower_bound": flag(),
    "totals": _FIGURES,
    "ops": [
        {"name": text(), "opcode": text(), "role": text(), "module_path": maybe(text()), "layer": maybe(whole())}
        | {"pass": maybe(text())}
        | {"count": _AMOUNT, **_FIGURES, **_TIMES}
    ],
    "by_role": [{"role": text(), **_FIGURES, **_TIMES}],
}


def run(config: ConfigDict, workdir: str) -> None:
    """Compares the configured programs; leaves with status 1 where a total grew by more than `fail_above`."""
    values = values_of(config)
    try:
        limit = parse_share(str(values["fail_above"]), "fail_above")
    except ValueError as error:
        raise UserError(f"--config.{error}") from error
    before, after = (_read(str(values[side]), side) for side in ("before", "after"))
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


def _read(named: str, side: str) -> dict[str, Any]:
    """Reads a cost.json, a folder that holds one, or HLO text, which is analysed."""
    if not named:
        raise UserError(f"--config.{side} is empty: name a cost.json, the folder of a cost job, or a file of HLO text.")
    path = Path(named).expanduser()
    if path.is_dir():
        path = path / "cost.json"
        if not path.is_file():
            raise UserError(f"--config.{side}={named!r} is a folder without a cost.json.")
    source = read_hlo(path)
    if not source.lstrip().startswith("{"):
        return json.loads(analyze_hlo(path).to_json())
    where = f"--config.{side}={str(path)!r}"
    found = parse_json(source, where)
    if found.get("schema") != SCHEMA:
        raise UserError(f"{where} is no cost.json of the schema {SCHEMA!r}.")
    return checked(found, _COST, f"{where}: ", strict=False)
