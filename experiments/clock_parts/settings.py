"""What the sections of the clock job are told: the settings of configs/clock.py, and the machine they run on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments._settings import SECTIONS
from llmjax.cycles.device import Device
from llmjax.errors import UserError, did_you_mean
from llmjax.models.config import DTYPES
from llmjax.models.families import SIZES, from_size
from llmjax.targets.names import parse_target


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
    """Makes settings of the config's checked values; what cannot work together raises `UserError`."""
    settings = Settings(**values)
    settings = dataclasses.replace(settings, sections=settings.sections or SECTIONS)
    for size in (settings.model, *settings.models):
        _one_of("model" if size == settings.model else "models", size, tuple(SIZES))
    if not settings.generates:
        _one_of("dtype", settings.dtype, tuple(DTYPES))
    _check_lengths(settings)
    for name in settings.targets:
        if parse_target(name).platform == "cpu":
            raise UserError(f"targets: {name!r} is the chip that is here: it is measured in any case; leave it out.")
    return settings


def _check_lengths(settings: Settings) -> None:
    room = from_size(settings.model).context
    new = settings.new_tokens if settings.generates else 0
    if settings.length + new > room:
        raise UserError(f"length={settings.length}: {settings.length + new} tokens are more than the model's {room}.")
    for number in settings.lengths:
        if number > room:
            raise UserError(f"lengths: {number} tokens are more than the model's {room}.")


def _one_of(setting: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"{setting}={value!r} is none of {', '.join(valid)}.{did_you_mean(value, valid)}")
