"""Published kernel times -> cards of GPUs: devices/*.json and fit.json in the workdir, errors on the terminal."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table

from experiments._settings import values_of
from llmjax.cycles.cards.build import Result, card, chips, fit_chips
from llmjax.cycles.cards.fit import Check
from llmjax.cycles.cards.tables import tables
from llmjax.cycles.device import to_json
from llmjax.errors import UserError, did_you_mean
from llmjax.files import atomic_write

NOTE = (
    "Median |error| on what no fit saw, and its bias. By shape: sizes that were held out (products: of the median of"
    " those who measured it). By source: besides, a framework that was left out. By chip: with the median terms of"
    " other chips like it."
)


def run(config: ConfigDict, workdir: str) -> None:
    """Fetches what was published, fits the chips, prints held-out errors and writes the cards."""
    began = time.perf_counter()
    values = values_of(config)
    neusight = Path(values["neusight"]).expanduser() if values["neusight"] else None
    if neusight is not None and not neusight.is_dir():
        raise UserError(f"--config.neusight={values['neusight']!r} is no folder.")
    if neusight is None and not values["aiconfigurator"]:
        raise UserError("--config.aiconfigurator=False leaves nothing to fit to: name a folder in --config.neusight.")
    names = _names(values["chips"], neusight is not None)
    folder = tables() if values["aiconfigurator"] else None
    results = fit_chips(names, folder, neusight, lambda what: print(f"fitting {what}", file=sys.stderr))
    if not results:
        raise UserError(f"--config.chips={values['chips']!r}: nothing of these chips was measured in what is given.")
    fitted = sorted({result.chip for result in results})
    try:
        for chip in fitted:
            text = json.dumps(to_json(card(chip, results)), indent=1, allow_nan=False) + "\n"
            atomic_write(Path(workdir) / "devices" / f"{chip.replace(':', '-', 1)}.json", text)
        atomic_write(Path(workdir) / "fit.json", json.dumps([asdict(r) for r in results], indent=1) + "\n")
    except OSError as error:
        raise UserError(f"workdir {workdir!r} cannot be written: {error.strerror or error}.") from error
    console = Console()
    console.print(errors(results))
    console.print(NOTE, highlight=False)
    print(f"{len(fitted)} cards and fit.json in {time.perf_counter() - began:.0f} s: {Path(workdir) / 'devices'}")


def _names(given: str, neusight: bool) -> tuple[str, ...]:
    known = chips(neusight)
    names = tuple(name.strip() for name in given.split(",") if name.strip()) or known
    for name in names:
        if name not in known:
            raise UserError(f"--config.chips: {name!r} is none of {', '.join(known)}.{did_you_mean(name, known)}")
    return names


def errors(results: Sequence[Result]) -> Table:
    """Held-out errors, a row for each kind of kernel of each chip."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="held out", title_justify="left")
    table.add_column("kernels", overflow="fold")
    for column in ("of", "by shape", "bias", "by source", "by chip"):
        table.add_column(column, justify="right", no_wrap=True)
    chip = ""
    for result in results:
        if result.chip != chip:
            chip = result.chip
            table.add_row(f"[bold]{chip}[/]")
        shape = result.by_shape
        cells = (f"{shape.kernels:,}", f"{shape.error:.1%}", f"{shape.bias:+.1%}")
        table.add_row(f"  {result.kind}", *cells, _error(result.by_source), _error(result.by_chip))
    return table


def _error(check: Check | None) -> str:
    return f"{check.error:.1%}" if check else "-"
