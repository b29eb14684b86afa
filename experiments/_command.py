"""A command line -> a job's config, checked, and its folder; and commands as one types them here."""

import os
import runpy
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments._settings import settled
from llmjax.errors import UserError, did_you_mean

ROOT = Path(__file__).resolve().parent.parent


class Arguments(NamedTuple):
    """What a command line says: `settings` are dotted names and what was typed, None for a flag's name alone."""

    config: str
    workdir: str
    settings: tuple[tuple[str, str | None], ...]


def parse(argv: list[str]) -> tuple[ConfigDict, str]:
    """Turns the command line into a job's config and its working folder; anything amiss raises `UserError`."""
    given = arguments(argv)
    file, _, argument = given.config.partition(":")
    config = settled(load_config(given.config), given.settings, given.config)
    variant = f"-{argument}" if argument.isidentifier() else ""
    return config, given.workdir or os.path.join("runs", Path(file).stem + variant)


def arguments(argv: list[str]) -> Arguments:
    """Reads `--config`, `--workdir`, `--config.KEY=VALUE` (or `--config.KEY VALUE`) and `--noconfig.KEY`."""
    own = {"config": "", "workdir": ""}
    settings: list[tuple[str, str | None]] = []
    rest = argv[1:]
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or not flag:
            raise UserError(f"{word!r} is no flag: settings are written --config.KEY=VALUE.")
        typed = value if equals else rest.pop(0) if rest and not rest[0].startswith("-") else None
        if flag in own:
            own[flag] = typed or ""
        elif flag.startswith("config."):
            settings.append((flag.removeprefix("config."), typed))
        elif flag.startswith("noconfig.") and typed is None:
            settings.append((flag.removeprefix("noconfig."), "False"))
        else:
            raise UserError(f"--{flag} is no flag.{did_you_mean(flag, own)}")
    return Arguments(own["config"], own["workdir"], tuple(settings))


def load_config(path: str) -> ConfigDict:
    """Returns what `get_config` of a config file gives, with the argument after ":" if there is one.

    Raises:
        UserError: there is no such file, or it does not give a config; it names the file's line.
    """
    if not path:
        raise UserError("No job was named: pass --config=configs/JOB.py; python launch.py lists the jobs.")
    file, colon, argument = path.partition(":")
    if not Path(file).is_file():
        folder = Path(file).parent if Path(file).parent.is_dir() else Path("configs")
        near = did_you_mean(file, map(str, folder.glob("*.py")))
        raise UserError(f"--config={path}: there is no file {file}.{near}")
    get_config = _run(file, lambda: runpy.run_path(file)).get("get_config")
    if not callable(get_config):
        raise UserError(f"--config={file}: the file defines no get_config().")
    config = _run(file, lambda: get_config(argument) if colon else get_config())
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file}: get_config() gives a {type(config).__name__}, not a ConfigDict.")
    return config


def _run(file: str, function: Callable[[], Any]) -> Any:
    """Calls what runs a config file's code; whatever goes wrong in it becomes a line that says where."""
    try:
        return function()
    except (UserError, KeyboardInterrupt):
        raise
    except SyntaxError as error:
        raise UserError(f"--config={file}: line {error.lineno or 1} is no Python: {error.msg}.") from error
    except BaseException as error:  # SystemExit too: a config file is asked for settings, not to end the process
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if Path(frame.filename).parent.resolve() == Path(file).parent.resolve()]
        where = f" {Path(ours[-1].filename).name} line {ours[-1].lineno}:" if ours else ""
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(f"--config={file}:{where} {type(error).__name__}{f': {said}' if said else ''}") from error


def launch_command(config: str, *words: str) -> str:
    """Returns the command that runs a job here, as one types it in the present folder: by the Python that runs now, or
    by the `llmjax` of an installed wheel."""
    if not (ROOT / "setup.py").exists():
        return " ".join(["llmjax run", shlex.quote(f"configs/{config}"), *words])
    found = shutil.which("python")
    active = found is not None and os.path.abspath(found) == os.path.abspath(sys.executable)
    python = "python" if active else _path_here(Path(os.path.abspath(sys.executable)))
    start = (python, _path_here(ROOT / "launch.py"), f"--config={_path_here(ROOT / 'configs')}{os.sep}{config}")
    return " ".join([*map(shlex.quote, start), *words])


def _path_here(path: Path) -> str:
    here = Path(os.path.abspath(os.curdir))
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
