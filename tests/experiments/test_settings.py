"""Every setting of every job: it has a check, its default passes it, and a bad value is one line that names both."""

import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from experiments import _settings
from experiments._settings import JOBS, leaves, names, settled, values_of
from llmjax.errors import UserError
from llmjax.schema import Check

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))
# What no setting takes, of whatever kind it is: numbers that are none, text that no file can hold, and foreign types.
NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1, -1.5, 10**23, 10**400)
NEVER = (*NUMBERS, None, "\udc80", "nul\0", {"a": "b"}, b"x", [[]], object())
OPEN_BELOW = ("mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.process")  # of these -1 is "not said"
FILLED = tuple(value for value in NEVER if value is not None)  # for settings that may stay open
# Typed on a command line where a number, a flag, a list or a text is meant.
TYPED = {
    float: ("", " ", "nan", "inf", "-inf", "x", "True", "1e400", "1,2", "(1,", "[]", "0x", "1" * 5000, "9" * 23, "-1"),
    bool: ("", "maybe", "2", "nan", "1,2"),
    tuple: ("(", "['a'", "nul\0", "\udcff"),
    str: ("nul\0", "\udcff"),
}
TYPED[int] = (*TYPED[float], "0.5", "1e3")
TYPED[type(None)] = TYPED[float]  # a number that is chosen where it is not set


def defaults(name: str, variant: str = "") -> Any:
    get_config = importlib.import_module(f"configs.{name}").get_config
    return get_config(variant) if variant else get_config()


def check_at(job: str, name: str) -> Check:
    found: Any = JOBS[job]
    for part in name.split("."):
        found = found[part]
    return found


def with_value(config: ConfigDict, setting: str, value: object) -> ConfigDict:
    values = config.to_dict()
    *above, last = setting.split(".")
    at = values
    for name in above:
        at = at[name]
    at[last] = value
    return ConfigDict(values)


def refuse(function: Callable[[], object], setting: str) -> str:
    with pytest.raises(UserError) as error:
        function()
    said = str(error.value)
    assert f"config.{setting}" in said and "\n" not in said and len(said) < 400
    return said


@pytest.mark.parametrize("variant", ["", "tiny"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_of_every_config_has_a_check_and_passes_it(name: str, variant: str) -> None:
    config = defaults(name, variant)
    assert config.experiment in JOBS, "a new job: say in experiments/_settings.py what each of its settings must be"
    assert set(leaves(config)) - {"experiment"} == set(names(JOBS[config.experiment]))
    assert values_of(settled(config)) == values_of(config)


def test_every_job_has_a_config_and_a_file() -> None:
    assert {defaults(name).experiment for name in CONFIGS} == set(JOBS)
    assert {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")} == set(JOBS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_setting_without_a_check_and_an_absent_one_are_refused(name: str) -> None:
    config = defaults(name)
    with config.unlocked():
        config.brand_new = 1
    refuse(lambda: values_of(config), "brand_new")
    first = names(JOBS[config.experiment])[0].partition(".")[0]
    config = defaults(name)
    with config.unlocked():
        del config[first]
    assert refuse(lambda: values_of(config), first) == f"config.{first} is missing."


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_values_are_named_with_their_setting(name: str) -> None:
    config = defaults(name)
    for setting, default in leaves(config).items():
        if setting == "experiment":
            continue
        opened = check_at(config.experiment, setting).open
        whole = (5 * 10**9, 0.5, 1.0, True, "1") if type(default) is int else ()
        never = FILLED if check_at(config.experiment, setting).optional else NEVER
        for value in (*never, *whole):
            if value == -1 and setting in OPEN_BELOW:
                continue
            refuse(
                partial(values_of, with_value(config, setting, value)),
                f"{setting}.a" if opened and isinstance(value, dict) else setting,
            )


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_words_on_the_command_line_are_named_with_their_setting(name: str) -> None:
    config = defaults(name)
    for setting, default in leaves(config).items():
        listed = check_at(config.experiment, setting).each if setting != "experiment" else None
        kind = tuple if listed else type(default)
        for word in TYPED[kind] if setting != "experiment" else ():
            if word == "-1" and setting in OPEN_BELOW:
                continue
            refuse(partial(settled, config, [(setting, word)]), setting)


def test_every_check_of_a_job_that_the_job_repeats_agrees_with_it() -> None:
    from experiments import _phases
    from llmjax.infer.sampling import RANGES
    from llmjax.kernels.formats import FORMATS
    from llmjax.models.config import DTYPES
    from llmjax.train.classification import METRICS
    from llmjax.train.optimizer import SCHEDULES

    assert tuple(_phases.PHASES) == _settings.PHASES
    assert _settings.COMPUTE == DTYPES and _settings.FORMATS == FORMATS
    assert all(check_at("generate", name).must == range_.must for name, range_ in RANGES.items())
    train: Any = JOBS["finetune"]["train"]
    assert train["metric"].names() == METRICS and train["optimizer"]["schedule"].names() == SCHEDULES


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("bearish,bullish, neutral", ("bearish", "bullish", "neutral")),
        ("('one, two', 'three')", ("one, two", "three")),
        ("one", ("one",)),
        ("", ()),
        ("a,,b,", ("a", "b")),
    ],
)
def test_lists_are_typed_with_commas_between(typed: str, kept: tuple[str, ...]) -> None:
    for name, setting in (("finetune", "data.label_names"), ("generate", "stop"), ("clock", "targets")):
        config = settled(defaults(name), [(setting, typed)]).to_dict()
        for part in setting.split("."):
            config = config[part]
        assert config == kept
    assert settled(defaults("clock"), [("batches", "1, 2,4")]).batches == (1, 2, 4)


ABSURD = """
import sys
import launch
for setting in sys.argv[2:]:
    name, _, rest = setting.partition(":")
    status = launch.main(["launch.py", f"--config=configs/{name}.py", f"--config.{rest}", f"--workdir={sys.argv[1]}"])
    print(status, "jax" in sys.modules)
"""


def test_absurd_sizes_end_a_job_before_jax_is_imported_or_a_file_written(tmp_path: Path) -> None:
    settings = (
        "benchmark:repeats=1e9", "calibrate:runs=-1", "classify:dtype=float", "clock:batches=1,1e9", "compare:batch=0",
        "cost:top=1e11", "diff:top=nan", "evaluate:dtype=int8", "finetune:train.batch_size=1000000000",
        "generate:seed=1e23", "generate:top_k=1e11", "microscope:runs=0", "perplexity:formats=",
        "quickstart:model.n_layer=100000000", "quickstart:model.attention_dropout=1.5",
        "sst2:train.optimizer.learning_rate=inf", "validate:rounds=",
    )  # fmt: skip
    command = [sys.executable, "-c", ABSURD, str(tmp_path / "w"), *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 False"] * len(settings)
    lines = done.stderr.splitlines()
    assert len(lines) == len(settings) and not (tmp_path / "w").exists()
    for setting, line in zip(settings, lines, strict=True):
        assert line.startswith(f"error: config.{setting.partition(':')[2].partition('=')[0]}")
