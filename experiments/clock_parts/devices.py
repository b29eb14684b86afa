"""The same token on one device and on a mesh of them: clock cycles of one device, of all cores, and of what is sent."""

from dataclasses import dataclass

from jax.sharding import Mesh

from experiments.clock_parts.phases import Run, phases_of, ran, shape_of
from experiments.clock_parts.settings import Machine, Settings
from experiments.clock_parts.words import times
from llmjax.parallel.mesh import on_mesh
from llmjax.report.collectives import collectives
from llmjax.report.page import Column, Section, Table
from llmjax.report.units import quantity


@dataclass(frozen=True)
class Spent:
    """What one run of a phase took on so many devices. FLOPs, bytes and `sending`, seconds, are one device's."""

    phase: str
    devices: int
    tokens: int
    seconds: float
    core_seconds: float
    flops: float
    sent: float
    sending: float

    @property
    def a_token(self) -> float:
        """Seconds a token."""
        return self.seconds / self.tokens


def section(settings: Settings, machine: Machine) -> Section:
    """Measures the phases on one device and on the mesh, and returns the section."""
    if machine.mesh is None:
        return Section("devices", "Several devices", ("The mesh that was asked for is one device here.",))
    found = []
    for phase in phases_of(settings):
        for mesh in (None, machine.mesh):
            with on_mesh(mesh):
                found.append(spent(ran(shape_of(settings, phase), settings.runs), mesh))
    return make_section(machine, found)


def spent(run: Run, mesh: Mesh | None) -> Spent:
    """Returns what a measured program spent."""
    rows = collectives(run.report) if mesh is not None else []
    totals = run.report.totals
    return Spent(
        run.shape.phase,
        1 if mesh is None else mesh.size,
        run.tokens,
        run.wall.median,
        run.core_seconds,
        float(totals.flops),
        float(totals.collective_bytes),
        sum(row.measured or 0.0 for row in rows),
    )


def make_section(machine: Machine, found: list[Spent]) -> Section:
    """The section of what was measured."""
    return Section("devices", "Several devices", tuple(findings(machine, found)), (_table(machine, found),))


def findings(machine: Machine, found: list[Spent]) -> list[str]:
    """What the numbers say, in words chosen by them."""
    hertz, said = machine.device.clock_hz.value, []
    for one, many in zip(found[::2], found[1::2], strict=True):
        said.append(
            f"A token of {one.phase} takes {one.a_token * hertz:,.0f} cycles on one device and"
            f" {many.a_token * hertz:,.0f} on {many.devices}: {times(one.seconds / many.seconds)}. A device sends"
            f" {quantity(many.sent / many.tokens, 'B')} a token; {many.sending / many.seconds:.0%} of its time it is in"
            " collectives, where it also waits for the slowest."
        )
    if found and machine.device.name.startswith("cpu"):
        said.append("Devices of a CPU are simulated: they share its cores, so that no more work is done at once.")
    return said


def _table(machine: Machine, found: list[Spent]) -> Table:
    hertz = machine.device.clock_hz.value
    columns = (
        Column("phase"),
        Column("devices"),
        Column("time a token", "s", "measured"),
        Column("cycles a token", "cycles", "measured"),
        Column("core cycles a token", "cycles", "measured"),
        Column("FLOPs a device and token", "FLOP", "counted"),
        Column("sent a device and token", "B", "counted"),
        Column("in collectives", "%", "measured"),
    )
    rows = tuple(
        (
            s.phase,
            s.devices,
            s.a_token,
            s.a_token * hertz,
            s.core_seconds * hertz / s.tokens,
            s.flops / s.tokens,
            s.sent / s.tokens,
            s.sending / s.seconds,
        )
        for s in found
    )
    note = "Tokens are those of all devices together. The profiler sees the collectives; waiting for others is in them."
    return Table("one device and a mesh", columns, rows, note)
