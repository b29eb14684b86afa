"""The `llmjax` command: HLO text in, what it costs out; and every job of a clone or of an installation.

Exit status: 0; 1 where `diff --fail-above` found more; 2 after a user's mistake; 128 + a signal. Results go to standard
output, messages to standard error. No JAX import: `run` alone may need it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from llmjax.errors import UserError

EPILOG = "A target is a chip's name, tpu:v5e or gpu:h100, or the file of a card."

EXTRAS = {"plotly": "report", "numpy": "gpu"}  # a package -> the extra that brings it


class Command(NamedTuple):
    """A word after `llmjax`: what it takes, what it does (returns the exit status), a line and an example."""

    add: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int]
    about: str
    example: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["run"]:  # its flags are the jobs' own
        return run_job(words[1:])
    arguments = parser().parse_args(words)
    try:
        return COMMANDS[arguments.command].act(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:  # of an extra: a wheel alone reads and counts
        extra = EXTRAS.get((error.name or "").partition(".")[0], "models")
        print(f"error: this needs {error.name}: pip install 'llmjax[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def parser() -> argparse.ArgumentParser:
    """Returns what reads the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="llmjax", description="Where every clock cycle of a language model goes, on any chip.", epilog=EPILOG
    )
    top.add_argument("--version", action="version", version=f"llmjax {version('llmjax')}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name, help=command.about, description=command.about, epilog=f"example: {command.example}\n{EPILOG}",
            formatter_class=raw,
        )  # fmt: skip
        command.add(sub)
    about = "run a job of configs/, as launch.py does: llmjax run configs/JOB.py[:ARG] [--config.KEY=VALUE ...]"
    commands.add_parser("run", help=about, description=about)
    return top


def _takes_program(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("hlo", help="a file of HLO text, packed by gzip or not")
    sub.add_argument("--target", help="the chip, or the card's file, to time it on")
    sub.add_argument("--trips", default="", metavar="NAME=N,...", help="turns of loops whose text does not tell them")
    sub.add_argument("--json", action="store_true", help="the result as JSON on standard output")


def _takes_cost(sub: argparse.ArgumentParser) -> None:
    _takes_program(sub)
    sub.add_argument("--html", metavar="FILE", help="write the page to look into, too")


def _takes_op(sub: argparse.ArgumentParser) -> None:
    _takes_program(sub)
    sub.add_argument("op", help="an op's name, a role or a module path")


def _takes_two(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("before", help="a file of HLO text, or a cost.json")
    sub.add_argument("after", help="another")
    sub.add_argument("--fail-above", default="", metavar="SHARE", help="leave with 1 where a total grew by more: 2%%")
    sub.add_argument("--top", type=int, default=10, help="rows a table")
    sub.add_argument("--json", action="store_true", help="the result as JSON on standard output")


def _report(arguments: argparse.Namespace) -> Any:
    from llmjax.analyser import analyze_hlo

    pairs = [pair.partition("=") for pair in arguments.trips.split(",") if pair]
    for name, _, count in pairs:
        if not count.isdecimal():
            raise UserError(f"--trips: {name!r} needs a whole number, as in --trips {name or 'while.3'}=64.")
    trips = {name: int(count) for name, _, count in pairs}
    return analyze_hlo(Path(arguments.hlo), trip_counts=trips or None, card=arguments.target)


def _cost(arguments: argparse.Namespace) -> int:
    report = _report(arguments)
    if arguments.html:
        report.save_html(arguments.html)
        print(f"to look at: {arguments.html}", file=sys.stderr)
    print(report.to_json() if arguments.json else report)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from llmjax.report.answers import explain
    from llmjax.verdict import op_verdict

    found = op_verdict(_report(arguments), arguments.op)
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


COMMANDS: dict[str, Command] = {
    "cost": Command(
        _takes_cost, _cost, "count what a program computes and moves, and time it on a chip",
        "llmjax cost module.hlo --target tpu:v5e",
    ),
    "explain": Command(
        _takes_op, _explain, "say of one op what bounds it and what would change it",
        "llmjax explain module.hlo fusion.12 --target gpu:h100",
    ),
    "diff": Command(
        _takes_two, _diff, "say what a second program costs more or less",
        "llmjax diff before.hlo after.hlo --fail-above 2%",
    ),
}  # fmt: skip


def run_job(words: Sequence[str]) -> int:
    """Runs a job by launch.py of the clone that this package lies in, or by the jobs that were installed with it."""
    package = Path(__file__).resolve().parent
    home = package.parent if (package.parent / "launch.py").is_file() else package / "home"
    sys.path.insert(0, str(home))
    if not (home / "launch.py").is_file():
        print(f"error: {home}: holds no launch.py: install llmjax again.", file=sys.stderr)
        return 2
    import launch

    named = [word for word in words if not word.startswith("-")][:1]
    rest = [word for word in words if word not in named]
    return launch.main(["llmjax run", *(f"--config={_config(name, home)}" for name in named), *rest])


def _config(name: str, home: Path) -> str:
    """Returns where a job's config is: as it was named, or among the jobs that lie with the package."""
    file = name.partition(":")[0]
    return name if Path(file).exists() or not (home / file).exists() else str(home / name)
