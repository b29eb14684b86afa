"""The `llmjax` command: a program in, what it costs out; and every job of a clone or of an installation.

Exit status: 0; 1 where `diff --fail-above` found more; 2 after a user's mistake; 128 + a signal. Results go to standard
output, messages to standard error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

from llmjax.commands import COMMANDS, JOBS, run_named
from llmjax.errors import UserError
from llmjax.jobs import run_job

EPILOG = "A target is a chip's name, tpu:v5e or gpu:h100, or the file of a card."

# A package -> the extra that brings it.
EXTRAS = {
    "plotly": "report", "numpy": "jax", "jax": "jax", "jaxlib": "jax", "scipy": "jax", "ml_dtypes": "jax",
    "torch": "hf", "torchax": "hf",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["run"]:  # its flags are the jobs' own
            return run_job(words[1:])
        if words[:1] and words[0] in JOBS:
            flags = [word for word in words[1:] if word != "--json" and not word.startswith("--workdir=")]
            workdir = next((word.partition("=")[2] for word in words if word.startswith("--workdir=")), "")
            return run_named(words[0], JOBS[words[0]][0], flags, workdir, "--json" in words)
        arguments = parser().parse_args(words)
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
    for name, (_, about) in JOBS.items():
        told = f"{about}: llmjax {name} [--json] [--config.KEY=VALUE ...], the job configs/{name}.py"
        commands.add_parser(name, help=told, description=told)
    about = "run a job of configs/, as launch.py does: llmjax run configs/JOB.py[:ARG] [--config.KEY=VALUE ...]"
    commands.add_parser("run", help=about, description=about)
    return top
