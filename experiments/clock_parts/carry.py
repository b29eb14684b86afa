"""Does an optimisation of LLM inference pay on a CPU, and on other chips: measured here, predicted there, and why."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.clock_parts.cases import Case, Timing, attempt_cases
from experiments.clock_parts.phases import say
from experiments.clock_parts.predictions import Forecast, Predicted, predict_cases
from experiments.clock_parts.settings import Machine, Settings
from experiments.clock_parts.words import clear, noisy, ratios, reason, roof_of, times
from llmjax.cycles.device import Device, load_device
from llmjax.models.cache import bucket
from llmjax.models.families import from_size
from llmjax.report.page import Column, Section, Table

NO_FUSION = "--xla_disable_hlo_passes=fusion"
GUESSES = 4  # tokens that a speculative step checks at once
ROWS_IN_ORDER = "a row of a weight is what one output reads, in order"
COSTS = "no, it costs"
SPECULATIVE = "speculative decoding"
_PAYS = 1.05


class Comparison(NamedTuple):
    """An optimisation: a case without and with it; `chips` are those that are predicted, None where they cannot be.

    `by` says what changes where no count does, `side_by_side` how many tokens one execution has for each before.
    """

    name: str
    before: Case
    after: Case
    chips: tuple[Case, Case] | None
    by: str = ""
    side_by_side: int = 1


def section(settings: Settings, machine: Machine) -> Section:
    """Measures each optimisation here, and predicts it for the configured targets."""
    rows = comparisons(settings, machine)
    shapes = new_shape(settings)
    here = [case for row in rows for case in (row.before, row.after)] + list(shapes)
    there = [case for row in rows if row.chips for case in row.chips]
    there += [dataclasses.replace(case, fresh=False) for case in shapes]
    found, failed = attempt_cases(here, settings.runs, say)
    forecast = predict_cases(there, settings.targets, say)
    return make_section(settings, machine.device, rows, shapes, found, failed, forecast)


def comparisons(settings: Settings, machine: Machine) -> tuple[Comparison, ...]:
    """The optimisations that this subject has."""
    change = dataclasses.replace
    step = Case(settings.model, "decode" if settings.generates else "classify", settings.batch, settings.length)
    rows = max(settings.batches)
    cores = round(machine.device.cores.value)
    found = [Comparison("fusion", change(step, flags=NO_FUSION), step, (change(step, jit=False), step))]
    if settings.generates:
        bare, stored = change(step, cached=False), change(step, prepared=False)
        found.append(Comparison("KV cache", bare, stored, (bare, stored)))
    if rows > settings.batch:
        many = change(step, batch=rows)
        found.append(
            Comparison(
                f"batching, {rows} instead of {settings.batch}", step, many, (step, many), "", rows // settings.batch
            )
        )
    if settings.generates:
        found.append(Comparison("weights arranged for reading", stored, step, (stored, step), ROWS_IN_ORDER))
    short = change(step, dtype="bfloat16")
    found.append(Comparison("low precision, bfloat16", step, short, (step, short)))
    if settings.generates:
        quantised = change(step, dtype="int8")
        found.append(Comparison("quantisation, int8", step, quantised, (step, quantised)))
        cached = change(step, kv_cache="int8")
        found.append(Comparison("quantisation of keys and values, int8", step, cached, (step, cached)))
    for pruned, what in (
        ("mlp-50", "half of the MLPs' channels"),
        ("heads-50", "half of the heads"),
        ("layers-50", "half of the layers"),
    ):
        less = change(step, pruned=pruned)
        found.append(Comparison(f"pruning, {what}", step, less, (step, less)))
    if cores > 1:
        by = f"{cores} cores share them"
        found.append(Comparison(f"parallel, {cores} cores instead of 1", change(step, threads=1), step, None, by))
    if settings.generates:
        # Tokens that are checked side by side read the weights once, as the rows of a batch do.
        checked = change(step, batch=settings.batch * GUESSES)
        found.append(
            Comparison(f"{SPECULATIVE}, at best ({GUESSES} of {GUESSES})", step, checked, (step, checked), "", GUESSES)
        )
    return tuple(found)


def new_shape(settings: Settings) -> tuple[Case, Case]:
    """A text of a length that was never compiled for, and the next bucket, which is."""
    exact = settings.length - settings.length // 8
    padded = min(bucket(exact), from_size(settings.model).context)
    phase = "prefill" if settings.generates else "classify"
    case = Case(settings.model, phase, settings.batch, exact, fresh=True)
    return case, dataclasses.replace(case, length=padded)


def make_section(
    settings: Settings,
    device: Device,
    rows: Sequence[Comparison],
    shapes: tuple[Case, Case],
    found: Mapping[Case, Timing],
    failed: Mapping[Case, str],
    forecast: Forecast,
) -> Section:
    """The section of what was measured and predicted; pure."""
    cells, told = [], []
    for row in rows:
        if row.before not in found or row.after not in found:
            continue
        factor = _factor(row.before, row.after, found)
        a, b = ((case, found[case]) for case in (row.before, row.after))
        roof = None if row.before.threads else roof_of(a, b, device)
        why = reason(factor, ratios(a, b), row.by, roof)
        there = [_predicted(row, target, forecast) for target in settings.targets]
        verdict = _verdict(factor) if clear(a, b) else "too noisy" if noisy(a[1], b[1]) else "not clear"
        cells.append((row.name, factor, verdict, *there, why))
        told.append(_Told(row, factor, verdict, there, why))
    told_of_guesses = [_guesses(row, found) for row in rows if row.name.startswith(SPECULATIVE)]
    bucketed, sentence = _buckets(settings, shapes, found, forecast)
    cells += bucketed
    columns = (
        Column("optimisation"),
        Column("here", "x", "measured"),
        Column("pays here"),
        *(Column(target, "x", "modelled") for target in settings.targets),
        Column("why, here"),
    )
    notes = [f"Not measured: {case.name}: {why}" for case, why in failed.items()]
    notes += list(forecast.notes)
    if not settings.targets:
        notes.append("No other chip was named: --config.targets=gpu:h100,tpu:v5e:2x2.")
    notes += _notes(settings)
    for one in told:
        if any(factor > one.row.side_by_side > 1 for factor in (one.factor, *one.there) if factor):
            notes.append(
                f"{one.row.name}: more than {one.row.side_by_side} times as fast, because a product of several rows is"
                " done (on other chips: modelled) at a better rate than that of one."
            )
    table = Table(
        "Times as fast a token, with the optimisation against without it",
        columns,
        tuple(cells),
        "Above 1 it pays; not clear: the quartiles of the two overlap; too noisy: those of one lie too far apart."
        " Fusion of another chip: the compiled program"
        " against its ops one by one, each through main memory. Dynamic shapes: a lone request of a new length,"
        " compiled for it against padded to a bucket.",
    )
    tables = (table, _reasons(settings, rows, forecast)) if forecast.found else (table,)
    return Section(
        "carry",
        "Does it carry over?",
        (*_findings(settings, told), *filter(None, told_of_guesses), *sentence),
        tables,
        notes=tuple(notes),
    )


def _reasons(settings: Settings, rows: Sequence[Comparison], forecast: Forecast) -> Table:
    """Why an optimisation is predicted to pay or not, chip by chip, by the counts of what each chip's compiler made."""
    cells = []
    for row in rows:
        if row.chips is None:
            continue
        told = []
        for target in settings.targets:
            factor = _predicted(row, target, forecast)
            if factor is None:
                told.append(None)
                continue
            a, b = ((case, forecast.found[case, target]) for case in row.chips)
            why = reason(factor, ratios(a, b), row.by, roof_of(a, b, load_device(target)))
            told.append(f"{factor:.3g}x: {why}")
        cells.append((row.name, *told))
    return Table("Why, on the other chips", (Column("optimisation"), *map(Column, settings.targets)), tuple(cells))


def _factor(before: Case, after: Case, found: Mapping[Case, Timing]) -> float:
    a, b = (found[case].seconds.median / case.tokens for case in (before, after))
    return a / b


def _predicted(row: Comparison, target: str, forecast: Forecast) -> float | None:
    if row.chips is None:
        return None
    values = [forecast.found.get((case, target)) for case in row.chips]
    if any(value is None for value in values):
        return None
    a, b = (value.seconds / case.tokens for value, case in zip(values, row.chips, strict=True) if value)
    return a / b


def _verdict(factor: float) -> str:
    return "yes" if factor >= _PAYS else "no" if factor > 1 / _PAYS else COSTS


class _Told(NamedTuple):
    """What a row of the table says."""

    row: Comparison
    factor: float
    verdict: str
    there: Sequence[float | None]
    why: str


def _findings(settings: Settings, told: Sequence[_Told]) -> list[str]:
    if not told:
        return []
    paying = [one for one in told if one.verdict == "yes"]
    found = [f"{len(paying)} of {len(told)} optimisations pay on this CPU"]
    if paying:
        best = max(paying, key=lambda one: one.factor)
        found[0] += f"; the most: {best.row.name}, {times(best.factor)} ({best.why})"
    found[0] += "."
    for one in told:
        if one.verdict == COSTS:
            found.append(f"{one.row.name}: here a token is {times(one.factor)} ({one.why}).")
    for k, target in enumerate(settings.targets):
        known = [one for one in told if one.there[k] is not None]
        differ = [one for one in known if (one.verdict == "yes") != ((one.there[k] or 0) >= _PAYS)]
        if not known:
            continue
        names = ", ".join(f"{one.row.name} ({one.factor:.3g}x here, {one.there[k]:.3g}x there)" for one in differ)
        rest = f"; it differs for {names}" if names else ""
        found.append(
            f"{target}, predicted: the answer is the same for {len(known) - len(differ)} of {len(known)}{rest}."
        )
    return found


def _guesses(row: Comparison, found: Mapping[Case, Timing]) -> str:
    """From how many right guesses on speculative decoding pays."""
    if row.before not in found or row.after not in found:
        return ""
    if noisy(found[row.before], found[row.after]):
        return f"How many guesses must be right for {SPECULATIVE} to pay: too noisy to tell."
    least = found[row.after].seconds.median / found[row.before].seconds.median
    return (
        f"A step that checks {GUESSES} tokens at once takes {least:.3g} times a step of one: {SPECULATIVE} pays here"
        f" where more than {least:.3g} tokens a check are right, the guesses themselves not counted."
    )


def _buckets(
    settings: Settings, shapes: tuple[Case, Case], found: Mapping[Case, Timing], forecast: Forecast
) -> tuple[list[tuple], list[str]]:
    """The row of dynamic shapes and a sentence: compile for the exact length, or pad."""
    exact, padded = shapes
    if exact not in found or padded not in found:
        return [], []
    one, other = found[exact], found[padded]
    there = []
    for target in settings.targets:
        pair = [forecast.found.get((dataclasses.replace(case, fresh=False), target)) for case in shapes]
        there.append(_bucket_factor(pair[0], pair[1]))
    factor = (one.compile_seconds + one.seconds.median) / other.seconds.median
    extra = other.seconds.median - one.seconds.median
    padding = f"{extra * 1e3:.3g} ms a request" if extra > 0 else "no time that was measured"
    why = f"compiling takes {one.compile_seconds:.3g} s, {padded.length - exact.length} tokens of padding {padding}"
    verdict = "too noisy" if noisy(one, other) else _verdict(factor)
    cells = [(f"dynamic shapes by buckets ({exact.length} in {padded.length})", factor, verdict, *there, why)]
    if noisy(one, other):
        what = f"a program for {exact.length} tokens saves against the bucket of {padded.length}"
        told = f"What {what}: too noisy to tell."
    elif extra <= 0:
        told = (
            f"A program for {exact.length} tokens instead of the bucket of {padded.length} saves no time at all here."
        )
    else:
        told = (
            f"A program for {exact.length} tokens instead of the bucket of {padded.length} saves {extra * 1e3:.3g} ms a"
            f" request and takes {one.compile_seconds:.3g} s to compile: it pays after"
            f" {one.compile_seconds / extra:,.0f} requests of that very length."
        )
    return cells, [told]


def _bucket_factor(exact: Predicted | None, padded: Predicted | None) -> float | None:
    if exact is None or padded is None or exact.compile_seconds is None:
        return None
    return (exact.compile_seconds + exact.seconds) / padded.seconds


def _notes(settings: Settings) -> list[str]:
    found = [
        "Several chips are not predicted: a program for one chip stays on it, and a sharded one is another program.",
        "What pruning and short formats cost in quality is on the board (configs/board.py), not here. Zeros in place of"
        " pruned weights would change nothing: they are multiplied as other numbers are.",
        "The compile time for another chip is that of its compiler on this machine.",
    ]
    if settings.generates:
        found.append(
            f"Speculative decoding: a step over {GUESSES} tokens is timed as a batch of {GUESSES} times the rows, which"
            " reads the weights once as well; all guesses are taken to be right and to cost nothing, so that the figure"
            " is the most there is to gain. Attention to one cache instead of several would be a little cheaper."
        )
    else:
        found.append("A classifier has no KV cache and nothing to speculate on; llmjax has no int8 classifier.")
    return found
