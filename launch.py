"""Runs one job: `python launch.py --config=configs/JOB.py[:ARG] [--config.KEY=VALUE ...] [--workdir=FOLDER]`."""

import ast
import importlib
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from llmjax.allocator import keep_freed_memory
from llmjax.errors import UserError, did_you_mean
from llmjax.files import cache_folder, private_folder

ROOT = Path(__file__).resolve().parent
# Where Linux shows an NVIDIA GPU, an AMD GPU, a GPU of Windows, and TPUs.
ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel0", "/dev/vfio/0")
_CONFIG = config_flags.DEFINE_config_file("config", None, "The job: a file of configs/, e.g. configs/quickstart.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for what the job writes. Default: runs/JOB or runs/JOB-ARG.")


def jobs() -> str:
    """Returns a line for each job there is: its config file and the first line of that file's docstring."""
    lines = []
    for path in sorted((ROOT / "configs").glob("[!_]*.py")):
        summary = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        lines.append(f"  --config=configs/{path.name:16} {summary}")
    return "\n".join(lines)


def usage() -> str:
    """Returns the text of `--help`."""
    return (
        f"{__doc__}\n\nJobs:\n{jobs()}\n\n"
        "A job's settings stand in its config file, a comment each; --config.KEY=VALUE overrides any of them.\n"
        "--config=configs/JOB.py:tiny runs the smallest form of a job. --workdir is where it writes\n"
        "(default runs/JOB, runs/JOB-tiny)."
    )


def config_path(argv: list[str]) -> str:
    """Returns the value of `--config` (a file that exists, and its argument if any), or raises `UserError`."""
    for arg, following in zip(argv[1:], [*argv[2:], ""], strict=False):
        name, _, value = arg.partition("=")
        if name in ("--config", "-config"):
            path = value or following
            break
    else:
        raise UserError(f"No job was named: pass --config=configs/JOB.py.\n\nJobs:\n{jobs()}")
    file = Path(path.partition(":")[0])
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else Path("configs")
        raise UserError(
            f"--config={path}: there is no file {file}.{did_you_mean(str(file), map(str, folder.glob('*.py')))}"
        )
    return path


def split_overrides(argv: list[str], settings: Mapping[str, object]) -> tuple[list[str], dict[str, dict[str, object]]]:
    """Checks that every `--config.KEY=VALUE` names one of the job's `settings`, given as `leaves` gives them.

    Returns:
        the arguments, less those that fill an open table (a setting whose default is an empty dict), and those tables:
        `--config.trip_counts.while.3=64` is {"trip_counts": {"while.3": 64}}.
    """
    kept, tables = [], {}
    for arg in argv:
        flag, _, value = arg.lstrip("-").partition("=")
        key = flag.removeprefix("no").removeprefix("config.")
        table = next((name for name, default in settings.items() if default == {} and key.startswith(f"{name}.")), None)
        if not arg.startswith("-") or not flag.startswith(("config.", "noconfig.")):
            kept.append(arg)
        elif table is not None:
            tables.setdefault(table, {})[key.removeprefix(f"{table}.")] = _literal(value)
        elif key in settings:
            kept.append(arg)
        else:
            raise UserError(f"--config.{key}: the job has no such setting.{did_you_mean(key, settings)}")
    return kept, tables


def leaves(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    """Returns every setting of `config` under its dotted name, an open table as {}."""
    found: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict) and len(value):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = {} if isinstance(value, ConfigDict) else value
    return found


def wrong_kind(message: str, settings: Mapping[str, object]) -> str:
    """Returns what absl's `message` on a flag's value means to one who reads config files, where that is known."""
    flag, _, said = message.removeprefix("flag ").partition(": ")
    key, _, value = flag.removeprefix("--config.").partition("=")
    kinds = {bool: "True or False", int: "a whole number", float: "a number"}
    default = settings.get(key)
    if type(default) not in kinds:
        return f"{flag}: {said}"
    return f"{flag}: {value!r} is not {kinds[type(default)]}, as the setting's default, {default}, is."


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def parse(argv: list[str]) -> tuple[ConfigDict, str]:
    """Turns the command line into a job's config and its working folder; anything amiss raises `UserError`."""
    file, colon, argument = config_path(argv).partition(":")
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise UserError(f"--config={file}: the file defines no get_config().")
    settings = leaves(get_config(argument) if colon else get_config())
    kept, tables = split_overrides(argv, settings)
    sys.argv = kept  # where ml_collections looks for the overrides
    try:
        rest = flags.FLAGS(kept)
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"--{error.flagname} is no flag.{did_you_mean(error.flagname, ['config', 'workdir'])}"
        ) from error
    except flags.IllegalFlagValueError as error:
        raise UserError(wrong_kind(" ".join(str(error).split()), settings)) from error
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    if rest[1:]:
        raise UserError(f"{rest[1]!r} is no flag: settings are written --config.KEY=VALUE.")
    config = _CONFIG.value
    with config.unlocked():
        for table, values in tables.items():
            config[table] = ConfigDict(values, allow_dotted_keys=True)
    variant = f"-{argument}" if argument.isidentifier() else ""
    return config, _WORKDIR.value or os.path.join("runs", Path(file).stem + variant)


def experiment(name: str) -> ModuleType:
    """Imports `experiments/NAME.py`, which must have `run(config, workdir)`."""
    known = [path.stem for path in (ROOT / "experiments").glob("[!_]*.py")]
    if name not in known:
        raise UserError(f"config.experiment={name!r}: there is no experiments/{name}.py.{did_you_mean(name, known)}")
    return importlib.import_module(f"experiments.{name}")


def program_folder() -> Path | None:
    """Returns where compiled programs are kept, or None, and says so, where it is not this user's alone to write."""
    try:
        private_folder(cache_folder())
        return private_folder(cache_folder() / "xla")
    except (UserError, OSError) as error:
        print(f"compiled programs are not kept: {error}", file=sys.stderr)
        return None


def terminated(number: int, _: object) -> None:
    """Ends the job as an exception does, so that nothing half-written and no child process stays behind."""
    sys.exit(128 + number)


def main(argv: list[str]) -> int:
    """Runs the job that `argv` names; returns 0, 2 after a user's mistake, or 128 + the signal that stopped it."""
    if len(argv) == 1 or {"--help", "-h", "-help"} & set(argv):
        print(usage())
        return 0
    logging.set_verbosity(logging.WARNING)
    signal.signal(signal.SIGTERM, terminated)
    try:
        config, workdir = parse(argv)
        # Compiled programs are kept between runs: a second run of the same command starts at once.
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := program_folder()):
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        if sys.platform == "linux" and not any(map(os.path.exists, ACCELERATORS)):
            # A compiler for chips that are not here would look for them, and complain.
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
        keep_freed_memory()
        experiment(str(config.experiment)).run(config, workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: that is not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
