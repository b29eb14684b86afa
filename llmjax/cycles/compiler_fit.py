"""The cycle model's terms for a chip that is not here, fitted to the compiler's own clock.

A TPU's compiler writes how many cycles it expects each op to take. Small programs of a calibration are compiled for the
chip, and the model's terms are fitted to those estimates as they are to measured times elsewhere. What comes out
follows the compiler's opinion of its chip; it is no measurement, and the device file says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp

from llmjax.cost import cost_module
from llmjax.cycles.calibration import Sample, by_kind, fit_terms
from llmjax.cycles.compiler_clock import TPU_MODEL, compiler_clock
from llmjax.cycles.device import Device, load_device
from llmjax.cycles.features import features
from llmjax.cycles.programs import Program, array, block, decode
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.targets.aot import compile_for

DTYPES = (jnp.float32, jnp.bfloat16)


def fit_to_compiler(target: str) -> Device:
    """Returns the chip's device with terms fitted to the compiler's estimates.

    All programs are compiled as one, since starting a compiler takes longer than most of them.

    Raises:
        UserError: there is no device file of the chip, its compiler is not installed, or it estimates no cycles.
    """
    device = replace(load_device(":".join(target.split(":")[:2])), fit={}, made_with={})
    programs = [_cast(program, dtype) for dtype in DTYPES for program in small_programs()]

    def everything(all_args: list[tuple[Any, ...]]) -> list[Any]:
        return [program.function(*args) for program, args in zip(programs, all_args, strict=True)]

    compiled = compile_for(target, jax.jit(everything), [program.args for program in programs])
    cost = cost_module(parse(compiled.text))
    clock = compiler_clock(cost)
    samples: list[Sample] = [
        (f, clock[f.name].cycles / device.clock_hz.value)
        for f in features(cost, device)
        if f.name in clock and clock[f.name].cycles > 0
    ]
    if not samples:
        raise UserError(f"target={target!r}: its compiler says nothing of how long an op takes (TPUs' do).")
    terms = {key: asdict(fit_terms(found, device)) for key, found in sorted(by_kind(samples).items())}
    terms = {key: {name: round(value, 12) for name, value in each.items()} for key, each in terms.items()}
    fit = {"dispatch": 0.0, "terms": terms, "samples": len(samples), "programs": len(programs)}
    return replace(device, fit=fit, made_with={"fitted_to": TPU_MODEL, "target": target, **_versions()})


def small_programs() -> Iterator[Program]:
    """What is compiled: products, transformer blocks and decode steps, of no size that GPT-2 has."""
    for m in (1, 3, 12, 48, 200, 900):
        for n, k in ((640, 640), (1280, 320), (960, 3840), (3840, 960), (32000, 160)):
            yield Program(f"x@w {m}x{n}x{k}", lambda x, w: x @ w, (array(m, k), array(k, n)))
    for width, rows, length in ((160, 1, 24), (640, 5, 48), (320, 6, 160), (640, 2, 320)):
        yield block(width, rows, length)
    for width, rows, slots in ((320, 1, 96), (960, 1, 320), (640, 6, 224)):
        yield decode(width, rows, slots)


def _cast(program: Program, dtype: Any) -> Program:
    def cast(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype) if leaf.dtype == jnp.float32 else leaf

    return program._replace(args=jax.tree.map(cast, program.args))


def _versions() -> dict[str, str]:
    found = {"jaxlib": version("jaxlib")}
    with contextlib.suppress(PackageNotFoundError):
        found["libtpu"] = version("libtpu")
    return found
