"""The cycle model: what an op computes and moves, on a device, in seconds and clock cycles. No JAX import.

An op takes

    overhead + (compute^p + memory^p)^(1/p)

A roofline is p -> infinity: work and traffic overlap wholly; p = 3 leaves a fifth where the two are equal. Each form of
a device gives these parts in its own way: a calibrated machine by fitted terms (fitted.py), a GPU whose physics is
known by its kernels (gpu.py), a TPU by its compiler's cycles and physics where they end (tpu.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from llmjax.cost.values import ModuleCost
from llmjax.cycles.device import Device, peak
from llmjax.cycles.features import Features, features
from llmjax.cycles.fitted import BETWEEN, fitted_parts
from llmjax.cycles.gpu import gpu_parts
from llmjax.cycles.terms import beside, value
from llmjax.cycles.timeline import elapsed
from llmjax.cycles.times import OpTime, Parts, ProgramTime
from llmjax.cycles.tpu import tpu_parts


def predict(cost: ModuleCost, device: Device) -> ProgramTime:
    """Predicts how long one execution of a module takes on a device, op by op."""
    return timed(cost, device, features(cost, device))


def timed(cost: ModuleCost, device: Device, ops: Sequence[Features]) -> ProgramTime:
    """Predicts the same from the features of the ops that run, in the order of the program, as `features` gives them
    or changed."""
    times = tuple(op_time(f, device) for f in ops)
    dispatch = _dispatch(cost, device)
    busy = sum(time.seconds for time in times)
    overlapped = dispatch + max(_laid_out(cost, times, device), _main_memory(times, device))
    sequential = busy + dispatch
    scale = overlapped / sequential if sequential else 1.0
    low = (sum(time.low for time in times) + dispatch) * scale
    high = (sum(time.high for time in times) + dispatch) * scale
    by_name: dict[str, OpTime] = {}
    for time in times:
        by_name.setdefault(time.name, time)
    return ProgramTime(device, times, dispatch, sequential, overlapped, low, high, by_name)


def _main_memory(times: Sequence[OpTime], device: Device) -> float:
    """Seconds of all traffic with main memory: ops that run side by side share its bandwidth."""
    return sum(time.memory.get(device.main_memory.name, 0.0) for time in times)


def _laid_out(cost: ModuleCost, times: Sequence[OpTime], device: Device) -> float:
    ran = [op for op in cost.ops if op.count]
    pairs = [(op, time) for op, time in zip(ran, times, strict=True) if time.count]
    seconds = {(op.computation, op.name): time.seconds / time.count for op, time in pairs}
    # Many copies are under way at a time: what one takes to begin passes while others move.
    copies = [(op, time) for op, time in pairs if time.term != "collective" and time.seconds]
    starts = {(op.computation, op.name): time.overhead / time.count for op, time in copies}
    return elapsed(cost, seconds, starts, beside(device) if physical(device) else 1.0)


def without_copies(cost: ModuleCost, time: ProgramTime) -> float:
    """Seconds of one execution, were its asynchronous copies between memories done at once.

    What is left of `overlapped` is waiting for main memory. A collective that ops wait for runs beside those copies.
    """
    copies = {op.name for op in cost.ops if op.instruction.opcode in ("copy-start", "slice-start")}
    kept = [replace(each, seconds=0.0) if each.name in copies else each for each in time.ops]
    return time.dispatch + _laid_out(cost, kept, time.device)


def between(cost: ModuleCost) -> dict[str, float]:
    """How often each of `BETWEEN` passes in one execution of a module."""
    arguments = sum(i.opcode == "parameter" for i in cost.module.entry)
    return dict(zip(BETWEEN, (1.0, float(arguments), sum(float(op.count) for op in cost.ops)), strict=True))


def physical(device: Device) -> bool:
    """Whether a device's times come from named terms of physics, not from a calibration."""
    return bool(device.terms) and not device.fit and device.kind in FORMS


def _dispatch(cost: ModuleCost, device: Device) -> float:
    if physical(device):
        return value(device, "host.start")
    seconds = {"dispatch": device.launch.value, **device.fit}
    return sum(count * float(seconds.get(name, 0.0)) for name, count in between(cost).items())


FORMS: Mapping[str, Callable[[Features, Device], Parts]] = {"gpu": gpu_parts, "tpu": tpu_parts}


def op_time(f: Features, device: Device) -> OpTime:
    """Predicts one op from its features."""
    parts = (FORMS[device.kind] if physical(device) else fitted_parts)(f, device)
    names = [memory.name for memory in device.memory]
    seconds = parts.seconds
    return OpTime(
        f.name,
        f.term,
        f.count,
        seconds * f.count,
        seconds / parts.spread * f.count,
        seconds * parts.spread * f.count,
        parts.compute * f.count,
        {name: time * f.count for name, time in zip(names, parts.memory, strict=True) if time},
        parts.overhead * f.count,
        parts.link * f.count,
        _roof(f, device, parts) if physical(device) else _largest(parts, names),
    )


def _largest(parts: Parts, names: list[str]) -> str:
    shares = {"compute": parts.compute, "overhead": parts.overhead, "link": parts.link}
    shares |= {f"memory:{name}": time for name, time in zip(names, parts.memory, strict=True)}
    return max(shares, key=lambda name: shares[name])


LATENCY = 0.5  # of an op's time that no roof explains, above which latency bounds it


def _roof(f: Features, device: Device, parts: Parts) -> str:
    """What bounds an op: the highest of its roofs, peaks and bandwidths of the data sheet; "overhead" under all.

    A collective's roof is that of the links it runs on, which its form knows.
    """
    if f.term == "collective":
        return "link" if parts.link >= parts.overhead else "overhead"
    roofs = {
        "compute": f.matmul / peak(device.matmul, f.dtype).value + f.vector / peak(device.vector, f.dtype).value,
        "link": (f.wire / device.link.value if device.link else 0.0)
        + (f.host / device.host_link.value if device.host_link else 0.0),
    }
    for size, level in zip(f.bytes, device.memory, strict=True):
        roofs[f"memory:{level.name}"] = size / level.bandwidth.value
    roofs[f"memory:{device.main_memory.name}"] += f.overfetched / device.main_memory.bandwidth.value
    highest = max(roofs, key=lambda name: roofs[name])
    return highest if roofs[highest] >= (1 - LATENCY) * parts.seconds else "overhead"
