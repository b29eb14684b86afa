"""A chip as numbers: clock, peaks, memory levels. Every number says where it comes from. No JAX import.

Devices are JSON files: `llmjax/cycles/devices/*.json` from datasheets, and the cards that configs/calibrate.py writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from llmjax.errors import UserError, did_you_mean
from llmjax.json_file import read_json
from llmjax.schema import checked, maybe, number, one_of, text

PROVENANCES = ("datasheet", "measured", "published", "estimate", "user")
FOLDER = Path(__file__).parent / "devices"
SCHEMA = "llmjax.device/2"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, what kind of number it is (one of PROVENANCES), and its source in words.

    `spread` is the relative distance between the quartiles of repeated measurements, None where it was not measured.
    """

    value: float
    provenance: str
    source: str
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory level: its name, capacity in bytes, and bandwidth of the whole device in bytes/s."""

    name: str
    capacity: Figure
    bandwidth: Figure


@dataclass(frozen=True)
class Device:
    """A chip, as far as it is one JAX device: of a TPU v2, v3 or 7x one of its two cores.

    `clock_hz` is the clock of its compute unit (CPU core, GPU SM, TPU TensorCore), `cores` how many of them there are.
    `matmul` and `vector` are peaks of the device in FLOP/s by HLO dtype (f32, bf16, s8, ...), `transcendental` in
    results/s. `memory` has the nearest level first, main memory last. `link` is what one chip sends to the others, in
    bytes/s, None where it stands alone, as far as `host_devices` of them are in one host; `network` is what it sends to
    those of other hosts, `host_link` what it and its host send each other one way (PCIe). `launch` is the time between
    two ops, in seconds. `simd_bits` is the width of a CPU's vectors, which its peaks have in them. `terms` are the
    chip's physics by name (terms.py), `checked` the median errors of kernels by kind on measurements that no fit saw,
    `fit` a calibration's terms (empty for a datasheet), `made_with` what it was calibrated with.
    """

    name: str
    title: str
    kind: str
    clock_hz: Figure
    cores: Figure
    matmul: Mapping[str, Figure]
    vector: Mapping[str, Figure]
    transcendental: Figure
    memory: tuple[Memory, ...]
    launch: Figure
    link: Figure | None = None
    host_link: Figure | None = None
    network: Figure | None = None
    host_devices: Figure | None = None
    simd_bits: Figure | None = None
    terms: Mapping[str, Figure] = field(default_factory=dict)
    checked: Mapping[str, float] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)
    made_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def main_memory(self) -> Memory:
        """The level that holds the weights: DRAM or HBM."""
        return self.memory[-1]


def peak(peaks: Mapping[str, Figure], dtype: str) -> Figure:
    """The peak for an HLO dtype; of one that the device does not list, that of the narrowest listed which holds it.

    "tf32" is float32 as GPUs round it for their matrix units by default.
    """
    if dtype in peaks:
        return peaks[dtype]
    wider = {"f16": "bf16", "bf16": "f16", "u8": "s8", "s4": "s8", "u4": "s8", "pred": "s8", "f64": "f32"}
    near = wider.get(dtype, "f8" if dtype.startswith("f8") else "f32")
    for name in (near, "bf16", "f32"):
        if name in peaks:
            return peaks[name]
    return next(iter(peaks.values()))


def device_names() -> tuple[str, ...]:
    """Names of the devices that come with llmjax."""
    return tuple(sorted(path.stem.replace("-", ":", 1) for path in FOLDER.glob("*.json")))


def load_device(name_or_path: str | Path) -> Device:
    """Reads a device: a name of `device_names()` ("gpu:h100"; "tpu:v5e:2x2" means that chip), or a card.

    Raises:
        UserError: there is no such device or file, or the file does not hold one.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    if path.suffix != ".json":
        chip = ":".join(text.split(":")[:2])
        path = FOLDER / f"{chip.replace(':', '-', 1)}.json"
        if not path.is_file():
            names = device_names()
            raise UserError(
                f"device {text!r} is none of {', '.join(names)}, nor a card's file: llmjax calibrate measures this"
                f" machine and writes one, runs/calibrate/card.json.{did_you_mean(chip, names)}"
            )
    return from_json(read_json(path, "device card"), text)


def from_json(data: Any, source: str) -> Device:
    """Makes a device of parsed JSON; `source` names it in a UserError."""
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if schema != SCHEMA:
        other = str(schema).startswith(SCHEMA.partition("/")[0])
        hint = " Another version of llmjax made it: run configs/calibrate.py again." if other else ""
        raise UserError(f"{source!r} is no device card: its schema is {schema!r}, not {SCHEMA!r}.{hint}")
    known = {f.name for f in fields(Device)}
    try:
        values = {key: _read(key, value) for key, value in data.items() if key in known}
        device = Device(**values)
        from llmjax.cycles.fitted import check_fit  # both know what is read of a card, and import this file
        from llmjax.cycles.terms import TERMS

        check_fit(device.fit)
        if device.terms and device.kind not in TERMS:
            raise UserError(f"kind={device.kind!r} must be one of {', '.join(TERMS)}, which terms are known for")
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"device card {source!r} does not hold a whole device: {str(error).rstrip('.')}.") from error
    if not device.memory or not device.matmul or not device.vector:
        raise UserError(f"device card {source!r} lists no memory, or no peaks.")
    return device


def to_json(device: Device) -> dict[str, Any]:
    """The device as JSON values."""
    values: dict[str, Any] = {"schema": SCHEMA}
    for f in fields(Device):
        value = getattr(device, f.name)
        if value is not None and value != {}:
            values[f.name] = _write(value)
    return values


def override(device: Device, changes: Mapping[str, Any]) -> Device:
    """The device with numbers replaced, to ask "what if": clock_hz, cores, launch, link, host_link, transcendental,
    bandwidth or capacity (of main memory), or a level's by `memory.NAME.bandwidth`, peaks by `matmul.DTYPE` and
    `vector.DTYPE`.

    A higher clock raises the peaks with it (they are clock x units), not the bandwidth of main memory.

    Raises:
        UserError: no such number, or it is not positive.
    """
    for key, value in _flat(changes).items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise UserError(f"--config.device.{key}={value!r} must be a number above 0.")
        device = _replace(device, key, Figure(float(value), "user", f"--config.device.{key}"))
    return device


def _replace(device: Device, key: str, new: Figure) -> Device:
    head, _, rest = key.partition(".")
    if key == "clock_hz":
        times = new.value / device.clock_hz.value
        scaled = {name: _scaled(getattr(device, name), times) for name in ("matmul", "vector")}
        near = tuple(replace(m, bandwidth=_times(m.bandwidth, times)) for m in device.memory[:-1])
        memory = (*near, device.memory[-1])
        rate = _times(device.transcendental, times)
        return replace(device, clock_hz=new, transcendental=rate, memory=memory, **scaled)
    if key in ("cores", "launch", "link", "network", "host_link", "transcendental"):
        return replace(device, **{key: new})
    if head in ("matmul", "vector", "terms") and rest in getattr(device, head):
        return replace(device, **{head: {**getattr(device, head), rest: new}})
    level, _, what = rest.rpartition(".") if head == "memory" else (device.memory[-1].name, "", key)
    names = [m.name for m in device.memory]
    if level in names and what in ("bandwidth", "capacity"):
        return replace(device, memory=tuple(replace(m, **{what: new}) if m.name == level else m for m in device.memory))
    valid = ["clock_hz", "cores", "launch", "link", "network", "host_link", "transcendental", "bandwidth", "capacity"]
    valid += [f"memory.{name}.{part}" for name in names for part in ("bandwidth", "capacity")]
    valid += [f"{unit}.{dtype}" for unit in ("matmul", "vector", "terms") for dtype in getattr(device, unit)]
    raise UserError(f"--config.device.{key}: {device.name} has no such number.{did_you_mean(key, valid)}")


def _flat(changes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in changes.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _times(figure: Figure, times: float) -> Figure:
    return replace(figure, value=figure.value * times, provenance="user", source=f"{figure.source}, clock overridden")


def _scaled(figures: Mapping[str, Figure], times: float) -> dict[str, Figure]:
    return {name: _times(figure, times) for name, figure in figures.items()}


_FIGURES = (
    "clock_hz",
    "cores",
    "transcendental",
    "launch",
    "link",
    "network",
    "host_devices",
    "host_link",
    "simd_bits",
)


def _read(key: str, value: Any) -> Any:
    if key in ("matmul", "vector", "terms"):
        return {name: _figure(figure, key == "terms") for name, figure in value.items()}
    if key == "memory":
        named = [checked(m, {"name": text(filled=True)}, "memory: ", strict=False) for m in value]
        return tuple(Memory(m["name"], _figure(m["capacity"]), _figure(m["bandwidth"])) for m in named)
    if key in _FIGURES:
        return _figure(value)
    if key in ("name", "title", "kind"):
        return checked({key: value}, {key: text(filled=True)}, "")[key]
    return dict(value)


def _figure(value: Mapping[str, Any], may_be_zero: bool = False) -> Figure:
    amount = number() if may_be_zero else number(above=True)
    kept = {"provenance": one_of(PROVENANCES), "source": text(filled=True), "spread": maybe(number())}
    found = checked(value, {"value": amount, **kept}, "", strict=False)
    return Figure(found["value"], found["provenance"], found["source"], found.get("spread"))


def _write(value: Any) -> Any:
    if isinstance(value, Figure | Memory):
        written = {f.name: _write(getattr(value, f.name)) for f in fields(value)}
        return {key: item for key, item in written.items() if item is not None}
    if isinstance(value, Mapping):
        return {key: _write(item) for key, item in value.items()}
    return [_write(item) for item in value] if isinstance(value, tuple | list) else value
