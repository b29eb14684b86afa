"""The `llmjax` command: a program in, what it costs out; and every job of a clone or of an installation.

Exit status: 0; 1 where `diff --fail-above` found more; 2 after a user's mistake; 128 + a signal. Results go to standard
output, messages to standard error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NamedTuple

from llmjax import commands, extras
from llmjax.errors import UserError
from llmjax.jobs import run_job

_STATUS = "Exit status: 0; 1 where diff --fail-above found more; 2 after a mistake;\n128 + a signal."
_TARGET = "A target is a chip's name, tpu:v5e or gpu:h100, or the file of a card."


class Command(NamedTuple):
    """A word after `llmjax`: what it takes, what it does (returns the exit status), a line and an example."""

    add: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int]
    about: str
    example: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["run"]:  # its flags are the jobs' own
            return run_job(words[1:])
        if words[:1] and words[0] in JOBS and not {"-h", "--help"} & set(words):
            flags = [word for word in words[1:] if word != "--json" and not word.startswith("--workdir=")]
            workdir = next((word.partition("=")[2] for word in words if word.startswith("--workdir=")), "")
            return commands.run_named(words[0], JOBS[words[0]].result, flags, workdir, "--json" in words)
        if not words:
            parser().print_help(sys.stderr)
            return 2
        arguments = parser().parse_args(words)
        return COMMANDS[arguments.command].act(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: {extras.told(error)}", file=sys.stderr)
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
        prog="llmjax", description="Where every clock cycle of a language model goes, on any chip.",
        epilog=f"example:\n  llmjax cost module.hlo --target gpu:h100\n\n{_STATUS}", formatter_class=_narrow,
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"llmjax {version('llmjax')}")
    words = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = words.add_parser(
            name, help=command.about, description=_sentence(command.about),
            epilog=f"example:\n  {command.example}\n\n{_TARGET}", formatter_class=raw,
        )  # fmt: skip
        command.add(sub)
    for name, job in JOBS.items():
        words.add_parser(
            name, help=job.about, description=_sentence(job.about), formatter_class=raw,
            usage=f"llmjax {name} [--json] [--workdir=FOLDER] [--config.KEY=VALUE ...]",
            epilog=f"The job configs/{name}.py: its settings stand there, a comment each.\nexample:\n  {job.example}",
        )  # fmt: skip
    words.add_parser("run", help="run a job of configs/ as launch.py does: llmjax run lists them", add_help=False)
    return top


def _narrow(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=14)


def _sentence(about: str) -> str:
    return f"{about[0].upper()}{about[1:]}."


def _takes_function(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--args", default="", metavar="SHAPES", help="what my.py:step takes: 'f32[8,128], i32[8]'")
    sub.add_argument("--batch", type=int, default=1, metavar="N", help="rows of hf:CONFIG (%(default)s)")
    sub.add_argument("--length", type=int, default=128, metavar="N", help="tokens a row of hf:CONFIG (%(default)s)")
    sub.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of hf:CONFIG (%(default)s)")
    sub.add_argument("--json", action="store_true", help="print the result alone, as JSON")


def _takes_program(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "program", help="HLO text, a proto, StableHLO, a folder of a dump, a trace, my.py:step or hf:CONFIG"
    )
    sub.add_argument("--target", default="", metavar="CHIP", help="the chip, or the card's file, to time it on")
    sub.add_argument("--only", default="", metavar="PATTERN", help="only modules of such names: 'jit_train*'")
    sub.add_argument("--trace", default="", metavar="TRACE", help="a trace of jax.profiler that has the module's times")
    sub.add_argument("--trips", default="", metavar="NAME=N,...", help="iterations of loops that the text leaves open")
    _takes_function(sub)


def _takes_cost(sub: argparse.ArgumentParser) -> None:
    _takes_program(sub)
    sub.add_argument("--html", metavar="FILE", help="also write a page to look at")
    sub.add_argument("--top", type=int, default=10, metavar="N", help="rows of the tables of ops (%(default)s)")


def _takes_measure(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "program", help="my.py:step, or hf:CONFIG: a folder, a config.json or a model_type of transformers"
    )
    sub.add_argument("--target", default="", metavar="CARD", help="this machine's card, to predict it too")
    _takes_function(sub)
    sub.add_argument("--html", metavar="FILE", help="also write a page to look at")
    sub.add_argument("--top", type=int, default=10, metavar="N", help="rows of the tables of ops (%(default)s)")


def _takes_op(sub: argparse.ArgumentParser) -> None:
    _takes_program(sub)
    sub.add_argument("op", help="an op's name, a role or a module path")


def _takes_two(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("before", help="a cost.json, its folder, or a program in any form that `llmjax cost` takes")
    sub.add_argument("after", help="another")
    sub.add_argument("--target", default="", metavar="CHIP", help="the chip, or the card's file, to time both on")
    sub.add_argument("--fail-above", default="", metavar="SHARE", help="exit with 1 if a total grew by more: 2%%")
    sub.add_argument("--top", type=int, default=10, metavar="N", help="rows of the table of ops (%(default)s)")
    _takes_function(sub)


def _takes_chips(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "program", help="my.py:step, or hf:CONFIG: a folder, a config.json or a model_type of transformers"
    )
    sub.add_argument("--targets", required=True, metavar="CHIP,...", help="the chips to compile it for")
    sub.add_argument("--card", default="", metavar="FILE", help="this machine's card, to time it on cpu")
    _takes_function(sub)
    sub.add_argument("--workdir", default="", help="where compare.json and compare.html go; runs/compare by default")


def _takes_look(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("program", help="my.py:step, or a folder that --xla_dump_to wrote on an x86 machine")
    sub.add_argument("op", help="an op's name, a role or a module path")
    _takes_function(sub)
    sub.add_argument("--workdir", default="", help="where microscope.json, op.hlo and loop.s go")


def _takes_shell(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


COMMANDS: dict[str, Command] = {
    "cost": Command(
        _takes_cost, commands.cost, "count what a program computes and moves, and time it on a chip",
        "llmjax cost my.py:step --args 'f32[8,128], i32[8]' --target tpu:v5e",
    ),
    "explain": Command(
        _takes_op, commands.explain, "say what bounds one op, and what would change it",
        "llmjax explain module.hlo fusion.12 --target gpu:h100",
    ),
    "diff": Command(
        _takes_two, commands.diff, "compare what two programs cost",
        "llmjax diff before.hlo after.hlo --fail-above 2%",
    ),
    "compare": Command(
        _takes_chips, commands.compare, "compile a function for several chips, here or not: time and memory on each",
        "llmjax compare my.py:step --args 'f32[8,128]' --targets tpu:v5e:1x1,gpu:h100",
    ),
    "measure": Command(
        _takes_measure, commands.measure, "run a function here and measure each of its ops",
        "llmjax measure my.py:step --args 'f32[8,128]'",
    ),
    "microscope": Command(
        _takes_look, commands.microscope, "look at one op on an x86 CPU: HLO, machine code, cycles",
        "llmjax microscope my.py:step softmax --args 'f32[8,128]'",
    ),
    "completion": Command(
        _takes_shell, commands.completion, "print a shell's completions of these commands",
        "llmjax completion bash > ~/.local/share/bash-completion/completions/llmjax",
    ),
}  # fmt: skip


class Job(NamedTuple):
    """A job of configs/ that is a word too: the file it writes, a line and an example."""

    result: str
    about: str
    example: str


# llmjax plan --config.model=gpt2-xl is llmjax run configs/plan.py --config.model=gpt2-xl.
JOBS = {
    "calibrate": Job("card.json", "measure this machine and write its card", "llmjax calibrate --workdir=here"),
    "plan": Job(
        "plan.json", "search the meshes of a pod for a model before renting it",
        "llmjax plan --config.model=gpt2-xl --config.targets=tpu:v5e:4x4",
    ),
}  # fmt: skip
