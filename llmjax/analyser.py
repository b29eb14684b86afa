"""The analyser's front door: a JAX function or HLO text -> a report of what it costs, op by op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjax.analysis import analysis_of
from llmjax.cost.given import given_table
from llmjax.cost.roles import RoleTable, read_roles
from llmjax.cycles.device import Device, load_device
from llmjax.errors import UserError
from llmjax.hlo import parse
from llmjax.hlo.backend import guess_backend
from llmjax.hlo.document import decode, read_bytes
from llmjax.inputs.files import read_sources, the_one
from llmjax.inputs.source import Source
from llmjax.report import CostReport

CustomCalls = Mapping[str, Any] | str | Path
Roles = RoleTable | Sequence[tuple[str, str]] | str | Path


def analyze(
    program: Callable[..., Any] | Any,
    *args: Any,
    trip_counts: Mapping[str, int] | None = None,
    roles: Roles | None = None,
    branch_probabilities: Mapping[str, Sequence[float]] | None = None,
    custom_calls: CustomCalls | None = None,
    target: str | None = None,
    card: str | Path | Device | None = None,
    measure: bool = False,
    **kwargs: Any,
) -> CostReport:
    """Compiles `program` for the device that is here, or `target`, and counts what a call computes and moves, op by op.

    With a device's numbers (those of `target`, or `card`) it predicts how long each op takes.

    Args:
        program: a function, a jitted one, or its `.lower(...)` or `.lower(...).compile()`.
        args, kwargs: its arguments; `jax.ShapeDtypeStruct`s will do. None where it is lowered already.
        trip_counts: iterations of loops whose length the program does not say, by the name of the `while`.
        roles: how module paths become roles: (regular expression, role) rows, first match wins, a JSON file of them,
            or a RoleTable; llmjax.cost.roles.ROLES is the default.
        branch_probabilities: of each `conditional` named, one a branch; else its most expensive branch counts.
        custom_calls: your own figures for custom calls, by target, or a JSON file of them: {"my_kernel": {"flops":
            "2 * x0[0] * x0[1] * x1[1]", "bytes": "nbytes(x0) + nbytes(y0)"}} (llmjax/cost/given.py says more).
        target: a chip that need not be here: "tpu:v5e:2x2", "gpu:h100", "cpu" (llmjax/targets/names.py has them all).
            An argument of `program` itself that is called so cannot be given by name.
        card: a device card, as configs/calibrate.py writes, or its file.
        measure: run it too, and measure each op; the device has to be here.

    Raises:
        UserError: what is asked for does not fit the program, or the target's compiler is not installed.
    """
    source = source_of(program, *args, target=target, measure=measure, **kwargs)
    return report_of(source, trip_counts, roles, branch_probabilities, custom_calls, card)


def source_of(
    program: Callable[..., Any] | Any, *args: Any, target: str | None = None, measure: bool = False, **kwargs: Any
) -> Source:
    """Compiles a function, and runs it where it is to be measured; arguments and errors as of `analyze`."""
    if measure and target is not None:
        raise UserError(f"analyze(target={target!r}, measure=True): only a program of the device here can be run.")
    times = None
    if target is None:
        from llmjax.targets.local import compile_here

        compiled = compile_here(program, *args, **kwargs)
        if measure:
            from llmjax.cycles.profile import profile

            times = profile(compiled.executable, *args, **kwargs)
    else:
        from llmjax.targets.aot import compile_for

        compiled = compile_for(target, program, *args, **kwargs)
    module = parse(compiled.text)
    return Source(
        "program", module.name, compiled.text, module, backend=compiled.backend, target=compiled.target,
        compiler=compiled.cost_analysis, measured=times,
    )  # fmt: skip


def analyze_hlo(
    text_or_path: str | Path,
    trip_counts: Mapping[str, int] | None = None,
    roles: Roles | None = None,
    branch_probabilities: Mapping[str, Sequence[float]] | None = None,
    custom_calls: CustomCalls | None = None,
    card: str | Path | Device | None = None,
) -> CostReport:
    """Counts what one execution of HLO computes and moves, op by op. Needs no chip; JAX for protos and StableHLO alone.

    Args:
        text_or_path: HLO text (of more than one line) or a file of it: what `compiled.as_text()` returns and
            `--xla_dump_to` writes, of any backend; an HloProto; StableHLO, which is compiled for this machine's CPU; a
            trace of jax.profiler, whose times are then the measured ones. Of a dump, memory over time is read from
            what lies beside it.
        trip_counts, roles, branch_probabilities, custom_calls: as of `analyze`.
        card: what to time it on: a chip that llmjax knows ("tpu:v5e", "gpu:h100": llmjax.cycles.device.device_names()),
            or a device card or its file. The text is timed as it stands: that of another chip's compiler says so.

    Raises:
        UserError: the file cannot be read or is not text; HloParseError, one of them, where the text is not HLO.
    """
    if isinstance(text_or_path, str) and ("\n" in text_or_path or text_or_path.lstrip().startswith("HloModule")):
        source = Source("text", "HLO text", text_or_path, parse(text_or_path, "HLO text"))
    else:
        source = the_one(read_sources(Path(text_or_path), "").sources, str(text_or_path))
    return report_of(source, trip_counts, roles, branch_probabilities, custom_calls, card)


def report_of(
    source: Source,
    trip_counts: Mapping[str, int] | None = None,
    roles: Roles | None = None,
    branch_probabilities: Mapping[str, Sequence[float]] | None = None,
    custom_calls: CustomCalls | None = None,
    card: str | Path | Device | None = None,
) -> CostReport:
    """Counts what one execution of a module that was brought computes and moves; arguments as of `analyze_hlo`.

    Raises:
        UserError: it was measured on another kind of chip than `card` is of.
    """
    device = _device(card)
    ran_on = (source.backend or guess_backend(source.module)) if source.measured else None
    if device is not None and ran_on not in (None, device.kind):
        raise UserError(
            f"{source.title}: its times were measured on a {str(ran_on).upper()}, and {device.title} is another kind of"
            " chip: leave the target out, or time the HLO alone."
        )
    return CostReport.of(
        analysis_of(
            source.module,
            trip_counts=trip_counts,
            trips=source.trips,
            roles=role_table(roles),
            branch_probabilities=branch_probabilities,
            custom_calls=given_table(custom_calls),
            backend=source.backend,
            compiler=source.compiler,
            text=source.text,
            target=source.target,
            device=device,
            measured=source.measured,
            mesh=source.mesh,
            buffers=source.buffers,
        )
    )


def _device(card: str | Path | Device | None) -> Device | None:
    return card if card is None or isinstance(card, Device) else load_device(card)


def read_hlo(path: Path) -> str:
    """Reads a text file, packed by gzip or not, or raises UserError: it is not there, cannot be read, or is binary."""
    return decode(read_bytes(path), repr(str(path)))


def role_table(roles: Roles | None) -> RoleTable | None:
    """Returns the table that `roles` stands for; None is the default one."""
    if roles is None or isinstance(roles, RoleTable):
        return roles
    return read_roles(roles) if isinstance(roles, str | Path) else RoleTable(tuple((r[0], r[1]) for r in roles))
