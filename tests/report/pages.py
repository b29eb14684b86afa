"""Pages for the tests: one of every style of plot and kind of table, with made-up figures."""

from llmjax.report.page import Cell, Column, Page, Plot, Section, Series, Table

STAGES = (
    "tokenise",
    "embed",
    "layer norm",
    "QKV projection",
    "attention scores",
    "softmax",
    "output projection",
    "MLP",
)
CYCLES = (2.1e5, 4.1e4, 1.9e6, 1.38e7, 1.2e6, 8.0e5, 4.6e6, 3.1e7)
BATCHES = (1, 2, 4, 8, 16, 32)
SECONDS = (0.0281, 0.0302, 0.0351, 0.0467, 0.0713, 0.1309)
LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
RUNGS = ("scalar, 1 core", "SIMD, 1 core", "SIMD, 2 cores", "KV cache", "inference layout", "batch of 8", "int8")
CHIPS = ("this CPU", "gpu:h100", "tpu:v5e:2x2")


def token() -> Section:
    """A waterfall and a table of stages."""
    rows = [(name, cycles, cycles / 3.47e9, cycles / sum(CYCLES)) for name, cycles in zip(STAGES, CYCLES, strict=True)]
    columns = (Column("stage"), Column("cycles", "cycles", "measured"), Column("time", "s", "measured"))
    return Section(
        "token",
        "What one token is, in clock cycles",
        (
            "One token of GPT-2 124M takes 53.6 M cycles of this CPU: 15.4 ms at 3.47 GHz. The MLP is 58% of them.",
            "The core retires 0.94 instructions a cycle, of the 4 it could; memory is what it waits for.",
        ),
        (Table("Stages of a decode step", (*columns, Column("share", "%", "measured")), tuple(rows), "Of 10 runs."),),
        (
            Plot(
                "Cycles along the stages of a decode step",
                "waterfall",
                Column("stage"),
                Column("cycles", "cycles"),
                (Series("decode", "measured", STAGES, CYCLES),),
                note="Each bar begins where the one before ended.",
            ),
        ),
        ("Instructions by stage were not measured: this machine has no hardware counters.",),
    )


def growth() -> Section:
    """Measured points beside predicted lines, on logarithmic axes, with ends."""
    predicted = tuple(0.9 * s for s in SECONDS)
    prefill = tuple(1e-4 * n + 2e-8 * n * n for n in LENGTHS)
    return Section(
        "growth",
        "Growth",
        ("Prefill grows with length to the power 1.08 between 16 and 1024 tokens (standard error 0.02).",),
        (
            Table(
                "Fitted exponents",
                (Column("of"), Column("against"), Column("exponent", "", "measured"), Column("error", "", "measured")),
                (("prefill", "length", 1.08, 0.02), ("decode", "batch", Cell(0.44, "modelled"), None)),
            ),
        ),
        (
            Plot(
                "Prefill against the length of the prompt",
                "lines",
                Column("length", "tokens"),
                Column("time", "s"),
                (
                    Series("prefill", "measured", LENGTHS, prefill),
                    Series("prefill", "modelled", LENGTHS, tuple(1.1 * s for s in prefill)),
                    Series("attention alone", "modelled", LENGTHS, tuple(2e-8 * n * n for n in LENGTHS)),
                ),
                log_x=True,
                log_y=True,
            ),
            Plot(
                "A decode step against the batch",
                "lines",
                Column("batch"),
                Column("time", "s"),
                (
                    Series(
                        "decode",
                        "measured",
                        BATCHES,
                        SECONDS,
                        tuple(0.93 * s for s in SECONDS),
                        tuple(1.1 * s for s in SECONDS),
                    ),
                    Series(
                        "decode",
                        "modelled",
                        BATCHES,
                        predicted,
                        tuple(0.8 * s for s in predicted),
                        tuple(1.2 * s for s in predicted),
                    ),
                ),
            ),
        ),
    )


def ladder() -> Section:
    """Bars, of one series and of two; text that wraps; kinds that differ within a column."""
    cycles = (6.4e10, 1.1e10, 6.9e9, 1.02e8, 9.6e7, 2.0e7, None)
    chips = tuple((chip, Cell(t, kind), why) for chip, t, kind, why in _chips())
    return Section(
        "ladder",
        "What optimisation buys",
        ("From scalar code on one core to int8 in batches of 8: 3,200 times fewer cycles a token.",),
        (
            Table(
                "On other chips",
                (Column("chip"), Column("time a token", "s"), Column("why")),
                chips,
            ),
        ),
        (
            Plot(
                "The ladder",
                "bars",
                Column("rung"),
                Column("cycles a token", "cycles"),
                (Series("decode", "measured", RUNGS, cycles),),
                log_y=True,
                note="int8 was not run: the checkpoint has none.",
            ),
            Plot(
                "What each optimisation is worth",
                "bars",
                Column("optimisation"),
                Column("times faster", "x"),
                (
                    Series("this CPU", "measured", RUNGS[1:4], (5.8, 1.6, 67.6), (5.5, 1.5, 60.0), (6.1, 1.9, 70.0)),
                    Series("gpu:h100", "modelled", RUNGS[1:4], (30.0, 1.0, 88.0)),
                ),
            ),
            Plot(
                "Speed against memory",
                "points",
                Column("memory", "B"),
                Column("speed", "tokens/s"),
                (Series("float32", "measured", (5e8, 1.5e9, 3.1e9), (48.0, 17.0, 8.1)),),
            ),
            Plot(
                "By weekday",
                "lines",
                Column("day"),
                Column("use of peak", "%"),
                (Series("use", "counted", ("Mon", "Tue", "Wed"), (0.31, 0.42, 0.38)),),
            ),
        ),
        ("The rung of 512-bit code is left out: XLA compiled the same code for it.",),
    )


def _chips():
    yield CHIPS[0], 0.0274, "measured", "It reads 498 MB of weights a step at 18 GB/s."
    yield CHIPS[1], 0.000271, "modelled", "Launching kernels takes longer than reading the weights, 124 of them a step."
    yield CHIPS[2], 0.000338, "modelled", "HBM: 819 GB/s."


def sample() -> Page:
    return Page("LLM inference and the CPU clock", "GPT-2 124M on 2 cores", (token(), growth(), ladder()))
