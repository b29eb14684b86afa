"""A CPU's clocked execution and LLM inference side by side; every row ends in what this very run found."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.clock_parts.settings import Machine, Settings
from llmjax.report.page import Column, Section, Table

MISSING = "not measured in this run"


class Row(NamedTuple):
    """An aspect, how each of the two has it, whether they are alike, and where this run says so.

    `sources` are (section, words): the first finding of the section that has one of the words, first source first.
    """

    aspect: str
    cpu: str
    inference: str
    alike: str
    sources: tuple[tuple[str, tuple[str, ...]], ...]


ROWS = (
    Row(
        "unit of work",
        "an instruction: a fixed, small piece of work",
        "a token: the same program for each, of millions of instructions",
        "alike: a stream of equal steps",
        (("token", ("FLOPs", "FLOP")), ("token", ("token",))),
    ),
    Row(
        "a cycle",
        "a tick of the core clock; an instruction takes a few, and several share one",
        "a step of decoding: one pass over all weights",
        "different: the clock ticks evenly, a step lasts as long as its memory traffic",
        (("token", ("a cycle", "cycles")), ("ladder", ("cycles",))),
    ),
    Row(
        "pipeline",
        "fetch, decode, execute, retire: instructions overlap",
        "tokenise, embed, layers, vocabulary, sample: a token's stages do not overlap with the next token's",
        "different: the next token needs this one's result",
        (("token", ("stage", "layer", "MLP", "vocabulary", "tokeni")), ("parallelism", ("span", "chain"))),
    ),
    Row(
        "parallelism",
        "superscalar issue, SIMD lanes and cores, found in a window of instructions",
        "wide inside a token (matrix products) and over rows and prompt tokens; none from token to token",
        "alike inside a step; different between steps",
        (("parallelism", ("parallelism", "times as")), ("ladder", ("The machine",))),
    ),
    Row(
        "memory wall",
        "caches keep what is used again, prefetchers what is read in order",
        "every weight is read once a step, from the nearest memory that holds them all; the KV cache is what is kept",
        "alike: both wait for memory unless something is used again",
        (("resources", ("Weights", "memory")), ("growth", ("memory",)), ("carry", ("bytes",))),
    ),
    Row(
        "branches and guesses",
        "a branch predictor guesses the next instruction and rolls back",
        "sampling decides the next token; speculative decoding guesses several and checks them in one step",
        "alike: guesses are cheap where checking them side by side is",
        (("carry", ("checks", "speculative")),),
    ),
    Row(
        "growth of cost",
        "an instruction costs the same, however long the program has run",
        "a token costs more the longer the text is: attention reads all tokens before it",
        "different: the state that a step reads grows",
        (
            ("growth", ("Decode cycles a run grow with the context", "with the context", "length")),
            ("resources", ("context", "length")),
        ),
    ),
    Row(
        "optimisation",
        "a compiler removes instructions and orders memory accesses",
        "fusion, layout, batching and short formats remove traffic and dispatches",
        "alike: the same work with less movement",
        (("ladder", ("The program", "largest")), ("carry", ("pay",))),
    ),
    Row(
        "throughput and latency",
        "more instructions in flight finish sooner in all, none of them by itself",
        "a larger batch makes more tokens a second, and each waits for its batch",
        "alike: the queue trades one for the other",
        (("workloads", ("at once", "answered")), ("ladder", ("batch",))),
    ),
)


def section(settings: Settings, machine: Machine, before: Mapping[str, Section]) -> Section:
    """The table, with the findings of the sections that this run has."""
    quoted = [quote(row, before) for row in ROWS]
    columns = (
        Column("aspect"),
        Column("a CPU's clock"),
        Column("LLM inference"),
        Column("alike?"),
        Column("in this run"),
    )
    rows = tuple(
        (row.aspect, row.cpu, row.inference, row.alike, found) for row, found in zip(ROWS, quoted, strict=True)
    )
    known = sum(found != MISSING for found in quoted)
    missing = [name for name in dict.fromkeys(s for row in ROWS for s, _ in row.sources) if name not in before]
    notes = [f"Left out of this run: {', '.join(missing)}."] if missing else []
    likes = sum(row.alike.startswith("alike") for row in ROWS)
    hertz = machine.device.clock_hz.value
    told = (
        f"In {likes} of {len(ROWS)} respects LLM inference is like a CPU's clocked execution, in {len(ROWS) - likes} it"
        f" is not; {known} of {len(ROWS)} rows have this run's own figures, on a clock of {hertz / 1e9:.3g} GHz."
    )
    return Section(
        "likeness", "Likeness and difference", (told,), (Table("Side by side", columns, rows),), notes=tuple(notes)
    )


def quote(row: Row, before: Mapping[str, Section]) -> str:
    """The finding of this run that a row ends in; MISSING where its sections were left out or found nothing."""
    for name, words in row.sources:
        if name in before and (found := _with_words(before[name].findings, words)):
            return found
    return MISSING


def _with_words(findings: Sequence[str], words: Sequence[str]) -> str:
    """The first finding with a figure and one of the words, in the order of the words."""
    for word in words:
        for finding in findings:
            if word in finding and any(letter.isdigit() for letter in finding):
                return finding
    return ""
