"""What the words after `llmjax` do: each takes what argparse read and returns the exit status.

No JAX import before something is read or compiled that needs it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmjax.errors import UserError
from llmjax.jobs import run_job

if TYPE_CHECKING:
    from llmjax.inputs.source import Source
    from llmjax.report.cost import CostReport


def _trips(words: str) -> dict[str, int]:
    pairs = [pair.partition("=") for pair in words.split(",") if pair]
    for name, _, count in pairs:
        if not count.isdecimal():
            raise UserError(f"--trips: {name!r} needs a whole number, as in --trips {name or 'while.3'}=64.")
    return {name: int(count) for name, _, count in pairs}


def _is_card(target: str) -> bool:
    return target.endswith(".json")


def _sources(arguments: argparse.Namespace, measure: bool = False) -> Sequence[Source]:
    """The programs that were brought, those of one text once."""
    from llmjax.inputs.files import joined, once, read_sources, the_one
    from llmjax.inputs.function import is_function
    from llmjax.report.terminal import every_second, warn_left_out

    if is_function(arguments.program):
        for flag in ("only", "trace"):
            if getattr(arguments, flag, ""):
                raise UserError(f"--{flag} is for programs in files; {arguments.program!r} is a function.")
        return [_compiled(arguments, arguments.program, measure)]
    if arguments.args:
        raise UserError(f"--args: {arguments.program!r} is no function; my.py:step is.")
    if measure:
        raise UserError(f"{arguments.program!r} cannot be run: measure takes a function, my.py:step.")
    target = arguments.target if not _is_card(arguments.target) else ""
    found = read_sources(Path(arguments.program), "", only=arguments.only, target=target, say=every_second("reading"))
    warn_left_out(found.left_out)
    if arguments.trace:
        return [joined(the_one(found.sources, arguments.program), Path(arguments.trace).expanduser())]
    return once(found.sources)


def _compiled(arguments: argparse.Namespace, word: str, measure: bool = False) -> Source:
    """A function, compiled for the target or this machine, and run where it is measured."""
    from llmjax.analyser import source_of
    from llmjax.backend import settle
    from llmjax.inputs.function import Size, jitted, read_call

    chip = arguments.target if arguments.target and not _is_card(arguments.target) else None
    if measure and chip:
        raise UserError(f"--target {chip}: only this machine can measure; its card is a file that calibrate wrote.")
    settle()
    size = Size(arguments.batch, arguments.length, arguments.dtype)
    call = jitted(read_call(word, arguments.args, size))
    return replace(source_of(call.function, *call.args, target=chip, measure=measure), title=word)


def _report(arguments: argparse.Namespace, source: Source) -> CostReport:
    """What a program costs; one that was compiled for a chip is timed on it, another where it is told."""
    from llmjax.analyser import report_of

    card = arguments.target if _is_card(arguments.target) or not source.target else ""
    return report_of(source, trip_counts=_trips(getattr(arguments, "trips", "")) or None, card=card or None)


def cost(arguments: argparse.Namespace, measure: bool = False) -> int:
    """Prints what each program costs, the largest first, or the table of many."""
    from llmjax.report.table import largest_first

    found = [(source, _report(arguments, source)) for source in _sources(arguments, measure)]
    return _show(arguments, sorted(found, key=lambda one: largest_first(one[1])))


def measure(arguments: argparse.Namespace) -> int:
    """Prints what a function costs and how long each of its ops takes here."""
    return cost(arguments, measure=True)


def _show(arguments: argparse.Namespace, reports: Sequence[tuple[Source, CostReport]]) -> int:
    from llmjax.report.table import module_lines, modules_table, print_report
    from llmjax.report.terminal import console

    if arguments.html:
        _write_page(Path(arguments.html), reports)
        print(f"to look at: {arguments.html}", file=sys.stderr)
    if arguments.json:
        objects = [json.loads(report.to_json()) for _, report in reports]
        print(json.dumps(objects[0] if len(objects) == 1 else objects, indent=1, allow_nan=False))
        return 0
    screen = console()
    if len(reports) == 1:
        source, report = reports[0]
        print_report(report, screen, arguments.top, source.title)
        return 0
    rows, told = module_lines(reports)
    screen.print(modules_table(rows, screen.width))
    print(f"{told} Tables of one, a list of some: --only 'NAME*'".strip(), file=sys.stderr)
    return 0


def _write_page(path: Path, reports: Sequence[tuple[Source, CostReport]]) -> None:
    from llmjax.files import atomic_write
    from llmjax.report.html import TABS, program_of, to_html

    programs = [program_of(report, source.label, source.title) for source, report in reports[:TABS]]
    try:
        atomic_write(path.expanduser(), to_html(programs, path.stem if len(programs) > 1 else ""))
    except OSError as error:
        raise UserError(f"--html {str(path)!r} cannot be written: {error.strerror or error}.") from error


def explain(arguments: argparse.Namespace) -> int:
    """Says of one op what bounds it and what would change it."""
    from llmjax.inputs.files import the_one
    from llmjax.report.answers import explain as sentences
    from llmjax.report.terminal import console
    from llmjax.verdict import op_verdict

    source = the_one(_sources(arguments), arguments.program)
    found = op_verdict(_report(arguments, source), arguments.op)
    if arguments.json:
        print(json.dumps(asdict(found), indent=1))
        return 0
    width = console().width
    print("\n".join(textwrap.fill(said, width, break_on_hyphens=False) for said in sentences(found)))
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Says what a second program costs more or less; returns 1 above the guard."""
    from llmjax.report.diff import diff as compared
    from llmjax.report.diff import parse_share
    from llmjax.report.diff_view import print_diff
    from llmjax.report.terminal import console

    try:
        limit = parse_share(arguments.fail_above, "--fail-above")
    except ValueError as error:
        raise UserError(str(error)) from error
    found = compared(*(_side(arguments, side) for side in ("before", "after")))
    if arguments.json:
        print(json.dumps(found.to_object(), indent=1, allow_nan=False))
    else:
        print_diff(found, console(), arguments.top)
    over = found.over(limit) if limit is not None else {}
    if over:
        print(f"more than --fail-above {arguments.fail_above}: {', '.join(over)}", file=sys.stderr)
    return 1 if over else 0


def _side(arguments: argparse.Namespace, side: str) -> dict[str, Any]:
    """One of the two programs that are compared, as its cost.json."""
    from llmjax.inputs.function import is_function
    from llmjax.read_cost import read_cost
    from llmjax.report.export import to_object

    word = getattr(arguments, side)
    if not is_function(word):
        return read_cost(word, side, arguments.target or None)
    return json.loads(json.dumps(to_object(_report(arguments, _compiled(arguments, word)))))


def compare(arguments: argparse.Namespace) -> int:
    """Compiles a function for several chips."""
    flags = [f"--config.targets={arguments.targets}", f"--config.card={arguments.card}", *_given(arguments)]
    return run_named("compare", "compare.json", flags, arguments.workdir, arguments.json)


def microscope(arguments: argparse.Namespace) -> int:
    """Looks at one op down to its machine code."""
    from llmjax.inputs.function import is_function

    given = _given(arguments) if is_function(arguments.program) else [f"--config.dump={arguments.program}"]
    flags = [f"--config.op={arguments.op}", *given]
    return run_named("microscope", "microscope.json", flags, arguments.workdir, arguments.json)


def _given(arguments: argparse.Namespace) -> list[str]:
    sizes = [f"--config.{name}={getattr(arguments, name)}" for name in ("batch", "length", "dtype")]
    return [f"--config.function={arguments.program}", f"--config.args={arguments.args}", *sizes]


def run_named(name: str, result: str, flags: Iterable[str], workdir: str = "", as_json: bool = False) -> int:
    """Runs a job of configs/; its own output is a message where the result, a file of its workdir, is asked for."""
    folder = workdir or f"runs/{name}"
    words = [f"configs/{name}.py", f"--workdir={folder}", *flags]
    if not as_json:
        return run_job(words)
    with contextlib.redirect_stdout(sys.stderr):
        status = run_job(words)
    if not status:
        print((Path(folder) / result).read_text(), end="")
    return status


def completion(arguments: argparse.Namespace) -> int:
    """Prints what makes a shell complete the words."""
    import shtab

    from llmjax.cli import parser

    print(shtab.complete(parser(), arguments.shell))
    return 0
