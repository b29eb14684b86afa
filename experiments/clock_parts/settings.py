"""What the sections of the clock job are told: the settings of configs/clock.py, and the machine they run on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from llmjax.cycles.device import Device
from llmjax.errors import UserError, did_you_mean
from llmjax.gpt2.config import DTYPES, SIZES, from_size
from llmjax.infer.prepare import check_format
from llmjax.targets.names import parse_target

SUBJECTS = ("generate", "classify")
# In the order of the page. The last one tells the others' numbers again, so it comes after them.
SECTIONS = ("token", "parallelism", "resources", "growth", "ladder", "carry", "workloads", "likeness")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of configs/clock.py, which says what each is."""

    subject: str
    model: str
    batch: int
    length: int
    new_tokens: int
    dtype: str
    card: str
    programs: int
    targets: tuple[str, ...]
    models: tuple[str, ...]
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    runs: int
    sections: tuple[str, ...]

    @property
    def generates(self) -> bool:
        """Whether the subject is a language model that continues texts; else it classifies them."""
        return self.subject == "generate"


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine that is here: its card, and whether it counts instructions (perf events)."""

    device: Device
    counters: bool


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Makes settings of the config's values; whatever cannot work raises `UserError`.

    `targets` and `sections` are one text with commas between the names.
    """
    lists = {name: _names(values[name]) for name in ("targets", "sections")}
    tuples = {name: tuple(values[name]) for name in ("models", "batches", "lengths", "widths")}
    settings = Settings(**{**values, **lists, **tuples})
    settings = dataclasses.replace(settings, sections=settings.sections or SECTIONS)
    _one_of("subject", settings.subject, SUBJECTS)
    for name in settings.sections:
        _one_of("sections", name, SECTIONS)
    for name, least in (("batch", 1), ("length", 2), ("new_tokens", 1), ("runs", 1), ("programs", 1)):
        if getattr(settings, name) < least:
            raise UserError(f"{name}={getattr(settings, name)} must be at least {least}.")
    for name in ("models", "batches", "lengths"):
        if not getattr(settings, name):
            raise UserError(f"{name}=() is empty: growth needs something to grow; name two or more.")
    for size in (settings.model, *settings.models):
        _one_of("model" if size == settings.model else "models", size, tuple(SIZES))
    if settings.generates:
        check_format(settings.dtype, "dtype")
    else:
        _one_of("dtype", settings.dtype, tuple(DTYPES))
    _check_lengths(settings)
    for name in settings.targets:
        if parse_target(name).platform == "cpu":
            raise UserError(f"targets: {name!r} is the chip that is here: it is measured in any case; leave it out.")
    return settings


def _check_lengths(settings: Settings) -> None:
    room = from_size(settings.model).n_positions
    new = settings.new_tokens if settings.generates else 0
    if settings.length + new > room:
        raise UserError(f"length={settings.length}: {settings.length + new} tokens are more than the model's {room}.")
    for name, numbers, most in (("batches", settings.batches, None), ("lengths", settings.lengths, room)):
        for number in numbers:
            if number < 1 or (most and number > most):
                raise UserError(f"{name}: {number} must be at least 1{f' and at most {most}' if most else ''}.")


def _one_of(setting: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"{setting}={value!r} is none of {', '.join(valid)}.{did_you_mean(value, valid)}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
