"""What the sections of the clock job are told: the settings of configs/clock.py, and the machine they run on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from experiments._settings import SECTIONS
from llmjax.cycles.device import Device
from llmjax.errors import UserError, did_you_mean
from llmjax.models.config import DTYPES
from llmjax.models.families import SIZES, from_size
from llmjax.targets.names import parse_target

MANY = "devices"  # the section that a mesh has, and one device has not


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of configs/clock.py, which says what each is."""

    mesh: Mapping[str, int]
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
    """The machine that is here: its card, whether it counts instructions (perf events), and the mesh that was asked
    for, None where it is one device.
    """

    device: Device
    counters: bool
    mesh: Mesh | None = None


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Makes settings of the config's checked values; what cannot work together raises `UserError`."""
    settings = Settings(**values)
    alone = set(settings.mesh.values()) == {1}
    chosen = settings.sections or tuple(name for name in SECTIONS if name != MANY or not alone)
    if MANY in chosen and alone:
        raise UserError(f"sections: {MANY!r} compares one device with several: give --config.mesh.tensor=2, or data=2.")
    settings = dataclasses.replace(settings, sections=chosen)
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
