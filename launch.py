"""Runs one job: `python launch.py --config=configs/JOB.py[:ARG] [--config.KEY=VALUE ...] [--workdir=FOLDER]`."""

from __future__ import annotations  # so that an older Python, too, gets as far as being told that it is too old

import ast
import importlib
import io
import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent


def jobs() -> str:
    """Returns a line for each job there is: its config file and the first line of that file's docstring."""
    lines = []
    for path in sorted((ROOT / "configs").glob("[!_]*.py")):
        summary = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]
        lines.append(_filled(f"  --config=configs/{path.name:16} {summary}", 36))
    return "\n".join(lines)


def _filled(text: str, indent: int = 0) -> str:
    width = shutil.get_terminal_size((80, 24)).columns
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def usage() -> str:
    """Returns the text of `--help`."""
    return f"{_filled(str(__doc__))}\n\nJobs:\n{jobs()}\n\n" + _filled(
        "A job's settings stand in its config file, a comment each; --config.KEY=VALUE overrides any of them (lists:"
        " commas between). --config=configs/JOB.py:tiny runs the smallest form of a job. --workdir is where it"
        " writes (default runs/JOB, runs/JOB-tiny)."
    )


def experiment(name: str) -> Any:
    """Imports `experiments/NAME.py`, which has `run(config, workdir)`."""
    return importlib.import_module(f"experiments.{name}")


def program_folder() -> Path | None:
    """Returns where compiled programs are kept, or None, and says so, where it is not this user's alone to write."""
    from llmjax.errors import UserError
    from llmjax.files import cache_folder, private_folder

    try:
        private_folder(cache_folder())
        return private_folder(cache_folder() / "xla")
    except (UserError, OSError) as error:
        print(f"compiled programs are not kept: {error}", file=sys.stderr)
        return None


def terminated(number: int, _: object) -> None:
    """Ends the job as an exception does, so that nothing half-written and no child process stays behind."""
    sys.exit(128 + number)


def run(argv: list[str]) -> None:
    """Runs the job that `argv` names; a mistake of the user's raises `UserError`, before anything is computed."""
    from absl import logging

    from experiments._command import parse
    from experiments._processes import joined
    from llmjax.backend import settle

    config, workdir = parse(argv)
    logging.set_verbosity(logging.WARNING)  # of Orbax
    # Compiled programs are kept between runs: a second run of the same command starts at once.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := program_folder()):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    job = experiment(str(config.experiment))
    with joined(config):
        if "jax" in sys.modules:  # a job that may do without imports it when it knows, and settles this then
            settle()
        job.run(config, workdir)


def main(argv: list[str]) -> int:
    """Runs the job that `argv` names; returns 0, 2 after a user's mistake, or 128 + the signal that stopped it."""
    status, line = 0, None
    signal.signal(signal.SIGTERM, terminated)
    try:
        _settle_streams()
        if len(argv) == 1 or {"--help", "-h", "-help"} & set(argv):
            print(usage())
        else:
            run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status, line = 128 + signal.SIGINT, "interrupted"
    except BrokenPipeError:  # the reader of our output (head, less) has gone: that is not an error of ours
        status = 128 + signal.SIGPIPE
    except Exception as error:
        status, line = 2, _told(error)
        if line is None:
            raise
    if line:
        print(line, file=sys.stderr)
    _let_go_of_output()
    return status


def _told(error: Exception) -> str | None:
    """Returns the line that says what a person can mend; None where the error is a mistake of the program's."""
    from llmjax.errors import UserError

    said = str(error)
    if isinstance(error, UserError):
        return f"error: {said}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(("llmjax", "experiments")):
        return f"error: {_way_to_start(error)}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said:
        return f"error: not enough memory{': ' if said else ''}{said.partition(chr(10))[0][:200]}"
    if isinstance(error, OSError) and error.strerror:
        return f"error: {repr(error.filename) + ': ' if error.filename else ''}{error.strerror}."
    return None


def _way_to_start(error: ModuleNotFoundError) -> str:
    """Returns what to do where a package is missing: mostly, this is not the Python that they were installed for."""
    from llmjax.extras import told

    if not (ROOT / "setup.py").exists():  # the jobs of an installed wheel
        return f"{told(error)}; every job needs no more than llmjax[models]"
    start = f"{error} in {sys.executable}:"
    made = next((p for p in (ROOT / ".venv/bin/python", ROOT / ".venv/Scripts/python.exe") if p.exists()), None)
    if made and Path(sys.prefix) != made.parent.parent:
        return (
            f"{start} llmjax was installed for another Python; run {made} launch.py, or activate {made.parent.parent}."
        )
    return f"{start} make quickstart installs what llmjax needs; so does pip install -e . in a virtual environment."


def _settle_streams() -> None:
    """Makes printing safe: a closed stream is refused or replaced, and what its encoding lacks is escaped."""
    from llmjax.errors import UserError

    if sys.version_info < (3, 11):  # noqa: UP036
        raise UserError(f"llmjax needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.")
    # Python leaves None for a stream that was closed; the next file to be opened would get its number.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    closed = sys.stdout is None
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if closed:
        raise UserError("standard output is closed: send it to a file, or to /dev/null.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Leaves nothing for Python to write at its end, where an error would be a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
