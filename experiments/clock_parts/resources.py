"""What memory inference takes: weights, KV cache, activations, compiled code; a token, and as the context grows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from experiments._programs import Shape, build
from experiments.clock_parts.cases import Case, attempt_cases
from experiments.clock_parts.phases import built, phases_of, say, shape_of
from experiments.clock_parts.settings import Machine, Settings
from llmjax.cycles.growth import fit_power
from llmjax.models.cache import Cache
from llmjax.models.families import from_size
from llmjax.report.page import Column, Plot, Section, Series, Table
from llmjax.report.units import short


@dataclass(frozen=True)
class Use:
    """Bytes of one program: its weights, the cache it is given, temporaries, and the compiled program itself."""

    phase: str
    length: int
    weights: float
    cache: float
    temporaries: float | None
    code: float | None


@dataclass(frozen=True)
class Facts:
    """`uses` of every phase and length; `peaks` are measured bytes by (phase, length)."""

    uses: tuple[Use, ...]
    peaks: Mapping[tuple[str, int], float]
    missing: tuple[str, ...]


def section(settings: Settings, machine: Machine) -> Section:
    """Compiles, measures and returns the section."""
    return make_section(settings, machine, gather(settings))


def gather(settings: Settings) -> Facts:
    """Compiles the phases at every length, and measures the memory of the first at two of them."""
    uses = tuple(_use(shape_of(settings, phase, length=n)) for phase in phases_of(settings) for n in lengths(settings))
    peaks: dict[tuple[str, int], float | None] = {}
    missing = []
    phase = phases_of(settings)[0]  # the one with the largest activations
    for n in sorted({settings.length, lengths(settings)[-1]}):
        # One process a case: what an earlier case gave back would hide what a later one takes.
        case = Case(settings.model, phase, settings.batch, n, settings.dtype)
        found, failed = attempt_cases([case], 1, say)
        peaks.update(((phase, n), timing.peak_bytes) for timing in found.values())
        missing += [f"Peak memory was not measured: {why}" for why in failed.values()]
    if None in peaks.values():
        missing.append("Peak memory was not measured: this system does not say (/proc/self/status).")
    return Facts(uses, {key: peak for key, peak in peaks.items() if peak is not None}, tuple(dict.fromkeys(missing)))


def lengths(settings: Settings) -> tuple[int, ...]:
    """The grid's lengths with that of the settings."""
    return tuple(sorted({*settings.lengths, settings.length}))


def _use(shape: Shape) -> Use:
    args = build(shape).args
    memory = built(shape)[1].memory
    caches = [arg for arg in args[1:] if isinstance(arg, Cache)]
    temporaries = float(memory.temporaries) if memory else None
    return Use(shape.phase, shape.length, _bytes(args[0]), sum(map(_bytes, caches)), temporaries, _code(shape))


def _bytes(tree: Any) -> float:
    return float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))


def _code(shape: Shape) -> float | None:
    """Bytes of the compiled program: what its backend says, or as long as it is when it is written out."""
    program = built(shape)[1]
    if program.memory and program.memory.code:
        return float(program.memory.code)
    try:
        return float(len(program.executable.runtime_executable().serialize()))
    except (AttributeError, RuntimeError, TypeError):  # not every jaxlib can
        return None


def make_section(settings: Settings, machine: Machine, facts: Facts) -> Section:
    """The section of what was compiled and measured."""
    return Section(
        "resources",
        "Memory: weights, cache, activations, code",
        tuple(findings(settings, machine, facts)),
        (_table(facts),),
        (_plot(facts),),
        facts.missing,
    )


def findings(settings: Settings, machine: Machine, facts: Facts) -> list[str]:
    """What the numbers say, in words chosen by them."""
    main = phases_of(settings)[-1]
    mine = [use for use in facts.uses if use.phase == main]
    here = next(use for use in mine if use.length == settings.length)
    caches = {m.name: m.capacity.value for m in machine.device.memory[:-1]}
    holds = next((name for name, size in caches.items() if size >= here.weights), None)
    place = (
        f"fit into {holds}"
        if holds
        else f"fit into no cache: each pass reads them from {machine.device.main_memory.name}"
    )
    said = [f"Weights take {short(here.weights, 'B')} ({settings.dtype}) and {place}."]
    if here.cache:
        each = cache_per_token(settings)
        even = here.weights / each
        room = from_size(settings.model).context
        beyond = "beyond" if even > room else "within"
        said.append(
            f"The KV cache takes {short(each, 'B')} a token, {short(here.cache, 'B')} for {settings.length} a row;"
            f" it outgrows the weights after {even:,.0f} tokens of all rows, {beyond} one row's {room:,}."
        )
    first = [use for use in facts.uses if use.phase == phases_of(settings)[0]]
    fit = fit_power([use.length for use in first], [use.temporaries or 0.0 for use in first])
    if fit:
        longest = max(first, key=lambda use: use.length)
        said.append(
            f"Activations of {first[0].phase} take {short(longest.temporaries or 0, 'B')} at {longest.length} tokens a"
            f" row and grow as its length^{fit.exponent:.2f} ({fit.low:,.0f} to {fit.high:,.0f} tokens)."
        )
    if here.code:
        said.append(
            f"The compiled program of {main} is {short(here.code, 'B')}, {here.code / here.weights:.2%} of the weights."
        )
    return said + _peak_findings(facts)


def cache_per_token(settings: Settings) -> float:
    """Bytes of keys and values of one token of one row."""
    use = _use(shape_of(settings, "decode"))
    cache = next(arg for arg in build(shape_of(settings, "decode")).args if isinstance(arg, Cache))
    return use.cache / (settings.batch * cache.slots)


def _peak_findings(facts: Facts) -> list[str]:
    said = []
    for (phase, length), peak in facts.peaks.items():
        use = next(use for use in facts.uses if (use.phase, use.length) == (phase, length))
        known = use.weights + use.cache + (use.temporaries or 0.0)
        if length == max(n for p, n in facts.peaks if p == phase):
            said.append(
                f"A process that runs {phase} over {length} tokens a row comes to hold {short(peak, 'B')},"
                f" {peak / known:.2f} times weights, cache and activations."
            )
    return said


def _table(facts: Facts) -> Table:
    columns = (
        Column("phase"),
        Column("tokens a row"),
        Column("weights", "B", "counted"),
        Column("KV cache", "B", "counted"),
        Column("activations", "B", "compiler"),
        Column("program", "B", "counted"),
        Column("peak of a process", "B", "measured"),
    )
    rows = tuple(
        (u.phase, u.length, u.weights, u.cache or None, u.temporaries, u.code, facts.peaks.get((u.phase, u.length)))
        for u in facts.uses
    )
    note = (
        "Activations are what the compiler reserves for temporaries (memory_analysis). The program is machine code with"
        " its description, as it is written to a file. The peak has the compiler's own memory in it. The cache is"
        " compiled in steps: 64, 96, 128, 192, ... tokens."
    )
    return Table("memory as the context grows", columns, rows, note)


def _plot(facts: Facts) -> Plot:
    series = []
    for phase in dict.fromkeys(use.phase for use in facts.uses):
        mine = [use for use in facts.uses if use.phase == phase]
        x = tuple(float(use.length) for use in mine)
        if not series:
            series.append(Series("weights", "counted", x, tuple(use.weights for use in mine)))
        if phase == "decode":
            series.append(Series("KV cache", "counted", x, tuple(use.cache for use in mine)))
        series.append(Series(f"activations of {phase}", "compiler", x, tuple(use.temporaries for use in mine)))
    lengths_, title = Column("tokens a row"), "memory as the context grows"
    return Plot(title, "lines", lengths_, Column("bytes", "B"), tuple(series), log_x=True, log_y=True)
