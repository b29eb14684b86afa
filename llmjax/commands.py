"""What the words after `llmjax` do. No JAX import before something is read or compiled that needs it."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llmjax.errors import UserError
from llmjax.jobs import run_job

if TYPE_CHECKING:
    from llmjax.inputs.source import Source
    from llmjax.report.cost import CostReport


class Command(NamedTuple):
    """A word after `llmjax`: what it takes, what it does (returns the exit status), a line and an example."""

    add: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int]
    about: str
    example: str


def _takes_function(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--args", default="", metavar="SHAPES", help="what my.py:step takes, as in 'f32[8,128], i32[8]'")
    sub.add_argument("--batch", type=int, default=1, help="rows of hf:CONFIG")
    sub.add_argument("--length", type=int, default=128, help="tokens a row of hf:CONFIG")
    sub.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of hf:CONFIG")
    sub.add_argument("--json", action="store_true", help="the result as JSON on standard output")


def _takes_program(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "program", help="HLO text, a proto, StableHLO, a folder of a dump, a trace, my.py:step or hf:CONFIG"
    )
    sub.add_argument("--target", default="", help="the chip, or the card's file, to time it on")
    sub.add_argument("--only", default="", metavar="PATTERN", help="of many modules those so called: 'jit_train*'")
    sub.add_argument("--trace", default="", metavar="TRACE", help="a trace of jax.profiler, with the module's times")
    sub.add_argument("--trips", default="", metavar="NAME=N,...", help="turns of loops whose text does not tell them")
    _takes_function(sub)


def _takes_cost(sub: argparse.ArgumentParser) -> None:
    _takes_program(sub)
    sub.add_argument("--html", metavar="FILE", help="write the page to look into, too")
    sub.add_argument("--top", type=int, default=10, help="rows of the tables of ops")


def _takes_measure(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "program", help="my.py:step, or hf:CONFIG: a folder, a config.json or a model_type of transformers"
    )
    sub.add_argument("--target", default="", metavar="CARD", help="this machine's card, to predict it too")
    _takes_function(sub)
    sub.add_argument("--html", metavar="FILE", help="write the page to look into, too")
    sub.add_argument("--top", type=int, default=10, help="rows of the tables of ops")


def _takes_op(sub: argparse.ArgumentParser) -> None:
    _takes_program(sub)
    sub.add_argument("op", help="an op's name, a role or a module path")


def _takes_two(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("before", help="a cost.json, its folder, or a module in any form that `llmjax cost` takes")
    sub.add_argument("after", help="another")
    sub.add_argument("--fail-above", default="", metavar="SHARE", help="leave with 1 where a total grew by more: 2%%")
    sub.add_argument("--top", type=int, default=10, help="rows a table")
    sub.add_argument("--json", action="store_true", help="the result as JSON on standard output")


def _takes_chips(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "program", help="my.py:step, or hf:CONFIG: a folder, a config.json or a model_type of transformers"
    )
    sub.add_argument("--targets", required=True, metavar="CHIP,...", help="chips to compile it for")
    _takes_function(sub)
    sub.add_argument("--workdir", default="", help="where compare.json and compare.html go; runs/compare by default")


def _takes_look(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("program", help="my.py:step, or a folder that --xla_dump_to wrote on an x86 machine")
    sub.add_argument("op", help="an op's name, a role or a module path")
    _takes_function(sub)
    sub.add_argument("--workdir", default="", help="where microscope.json, op.hlo and loop.s go")


def _trips(words: str) -> dict[str, int]:
    pairs = [pair.partition("=") for pair in words.split(",") if pair]
    for name, _, count in pairs:
        if not count.isdecimal():
            raise UserError(f"--trips: {name!r} needs a whole number, as in --trips {name or 'while.3'}=64.")
    return {name: int(count) for name, _, count in pairs}


def _sources(arguments: argparse.Namespace) -> Sequence[Source]:
    """The modules that were brought."""
    from llmjax.inputs.files import joined, once, read_sources, the_one
    from llmjax.report.terminal import every_second, warn_left_out

    target = arguments.target if not _is_card(arguments.target) else ""
    found = read_sources(Path(arguments.program), "", only=arguments.only, target=target, say=every_second("reading"))
    warn_left_out(found.left_out)
    if arguments.trace:
        return [joined(the_one(found, arguments.program), Path(arguments.trace).expanduser())]
    return once(found.sources)


def _is_card(target: str) -> bool:
    return target.endswith(".json")


def _reports(arguments: argparse.Namespace, measure: bool = False) -> list[tuple[Source | None, CostReport]]:
    """What each module that was brought costs, the largest first."""
    from llmjax.inputs.function import is_function

    if is_function(arguments.program):
        return [(None, _function(arguments, measure))]
    if arguments.args:
        raise UserError(f"--args: {arguments.program!r} is no function; my.py:step is.")
    if measure:
        raise UserError(f"{arguments.program!r} cannot be run: measure takes a function, my.py:step.")
    from llmjax.analyser import report_of
    from llmjax.report.table import largest_first

    trips, card = _trips(arguments.trips) or None, arguments.target or None
    found: list[tuple[Source | None, CostReport]] = [
        (source, report_of(source, trip_counts=trips, card=card)) for source in _sources(arguments)
    ]
    return sorted(found, key=lambda one: largest_first(one[1]))


def _function(arguments: argparse.Namespace, measure: bool) -> CostReport:
    from llmjax.analyser import analyze
    from llmjax.backend import settle
    from llmjax.inputs.function import Size, jitted, read_call

    for flag in ("only", "trace"):
        if getattr(arguments, flag, ""):
            raise UserError(f"--{flag} is for programs in files; {arguments.program!r} is a function.")
    settle()
    call = read_call(arguments.program, arguments.args, Size(arguments.batch, arguments.length, arguments.dtype))
    chip = arguments.target if arguments.target and not _is_card(arguments.target) else None
    if measure and chip:
        raise UserError(f"--target {chip}: only this machine can measure; its card is a file that calibrate wrote.")
    card = arguments.target if _is_card(arguments.target) else None
    trips = _trips(getattr(arguments, "trips", "")) or None
    return analyze(jitted(call), *call.args, target=chip, card=card, measure=measure, trip_counts=trips)


def _one(arguments: argparse.Namespace) -> CostReport:
    found = _reports(arguments)
    if len(found) > 1:
        names = ", ".join(report.name for _, report in found[:5])
        raise UserError(f"{arguments.program!r} holds {len(found)} modules ({names}, ...): --only NAME chooses one.")
    return found[0][1]


def _cost(arguments: argparse.Namespace) -> int:
    return _show(arguments, _reports(arguments))


def _measure(arguments: argparse.Namespace) -> int:
    return _show(arguments, _reports(arguments, measure=True))


def _show(arguments: argparse.Namespace, reports: Sequence[tuple[Source | None, CostReport]]) -> int:
    from llmjax.report.table import MOST, modules_table, print_report
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
        print_report(report, screen, arguments.top, source.title if source else arguments.program)
        return 0
    rows = [(source.told if source else report.name, report) for source, report in reports]
    screen.print(modules_table(rows[:MOST], screen.width))
    more = f"{len(rows) - MOST:,} smaller ones are not shown. " if len(rows) > MOST else ""
    print(f"{more}Tables of one: --only NAME", file=sys.stderr)
    return 0


def _write_page(path: Path, reports: Sequence[tuple[Source | None, CostReport]]) -> None:
    from llmjax.files import atomic_write
    from llmjax.report.export import to_object
    from llmjax.report.html import TABS, Program, to_html

    programs = [
        Program(source.label if source else report.name, to_object(report), report.text, source.title if source else "")
        for source, report in reports[:TABS]
    ]
    try:
        atomic_write(path.expanduser(), to_html(programs, path.stem if len(programs) > 1 else ""))
    except OSError as error:
        raise UserError(f"--html {str(path)!r} cannot be written: {error.strerror or error}.") from error


def _explain(arguments: argparse.Namespace) -> int:
    from llmjax.report.answers import explain
    from llmjax.verdict import op_verdict

    found = op_verdict(_one(arguments), arguments.op)
    print(json.dumps(asdict(found), indent=1) if arguments.json else "\n".join(explain(found)))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from llmjax.read_cost import read_cost
    from llmjax.report.diff import diff, parse_share
    from llmjax.report.diff_view import print_diff
    from llmjax.report.terminal import console

    try:
        limit = parse_share(arguments.fail_above, "--fail-above")
    except ValueError as error:
        raise UserError(str(error)) from error
    found = diff(read_cost(arguments.before, "before"), read_cost(arguments.after, "after"))
    if arguments.json:
        print(json.dumps(found.to_object(), indent=1, allow_nan=False))
    else:
        print_diff(found, console(), arguments.top)
    over = found.over(limit) if limit is not None else {}
    if over:
        print(f"more than --fail-above {arguments.fail_above}: {', '.join(over)}", file=sys.stderr)
    return 1 if over else 0


def _compare(arguments: argparse.Namespace) -> int:
    return _job("compare", arguments, "compare.json", [f"--config.targets={arguments.targets}", *_given(arguments)])


def _microscope(arguments: argparse.Namespace) -> int:
    from llmjax.inputs.function import is_function

    given = _given(arguments) if is_function(arguments.program) else [f"--config.dump={arguments.program}"]
    return _job("microscope", arguments, "microscope.json", [f"--config.op={arguments.op}", *given])


def _given(arguments: argparse.Namespace) -> list[str]:
    sizes = [f"--config.{name}={getattr(arguments, name)}" for name in ("batch", "length", "dtype")]
    return [f"--config.function={arguments.program}", f"--config.args={arguments.args}", *sizes]


def _job(name: str, arguments: argparse.Namespace, result: str, flags: Iterable[str]) -> int:
    return run_named(name, result, flags, arguments.workdir, arguments.json)


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


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    from llmjax.cli import parser

    print(shtab.complete(parser(), arguments.shell))
    return 0


def _takes_shell(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="whose completions")


COMMANDS: dict[str, Command] = {
    "cost": Command(
        _takes_cost, _cost, "count what a program computes and moves, and time it on a chip",
        "llmjax cost my.py:step --args 'f32[8,128], i32[8]' --target tpu:v5e",
    ),
    "explain": Command(
        _takes_op, _explain, "say of one op what bounds it and what would change it",
        "llmjax explain module.hlo fusion.12 --target gpu:h100",
    ),
    "diff": Command(
        _takes_two, _diff, "say what a second program costs more or less",
        "llmjax diff before.hlo after.hlo --fail-above 2%",
    ),
    "compare": Command(
        _takes_chips, _compare, "compile a function for several chips, here or not: its time and memory on each",
        "llmjax compare my.py:step --args 'f32[8,128]' --targets tpu:v5e:1x1,gpu:h100",
    ),
    "measure": Command(
        _takes_measure, _measure, "run a function here and measure each of its ops",
        "llmjax measure my.py:step --args 'f32[8,128]'",
    ),
    "microscope": Command(
        _takes_look, _microscope, "look at one op on an x86 CPU: its HLO, its machine code, its cycles",
        "llmjax microscope my.py:step softmax --args 'f32[8,128]'",
    ),
    "completion": Command(
        _takes_shell, _completion, "print what makes a shell complete these words",
        "llmjax completion bash > ~/.local/share/bash-completion/completions/llmjax",
    ),
}  # fmt: skip

# Jobs that are words too, what each writes and is for: llmjax plan --config.model=gpt2-xl is llmjax run configs/plan.py
# --config.model=gpt2-xl.
JOBS = {
    "calibrate": ("card.json", "measure this machine and write its card"),
    "plan": ("plan.json", "search meshes of a pod for a model, before it is rented"),
}
