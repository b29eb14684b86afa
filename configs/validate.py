"""Predict and measure programs that the calibration never saw, on this machine, and print how wrong the model is.

`:tiny` validates two tiny programs.
"""

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")

PROGRAMS = (
    *(f"small decode {b} {n}" for b, n in ((1, 64), (4, 256))),
    *(f"small prefill {b} {n}" for b, n in ((1, 128), (8, 64))),
    *(f"small train {b} {n}" for b, n in ((4, 64), (16, 32))),
    *(f"distilgpt2 decode {b} {n}" for b, n in ((1, 128), (8, 64))),
    *(f"distilgpt2 prefill {b} {n}" for b, n in ((1, 256), (4, 64))),
    *(f"gpt2 decode {b} {n}" for b, n in ((1, 16), (1, 512), (2, 128), (4, 256), (16, 128))),
    *(f"gpt2 prefill {b} {n}" for b, n in ((1, 16), (1, 512), (4, 128), (16, 32))),
    *(f"gpt2 classify {b} {n}" for b, n in ((1, 64), (16, 64))),
    *(f"gpt2 train {b} {n}" for b, n in ((1, 32), (4, 64))),
    *(f"gpt2-medium decode {b} {n}" for b, n in ((1, 256), (4, 128))),
    "gpt2-medium prefill 1 128",
    *(f"smollm2-135m decode {b} {n}" for b, n in ((1, 128), (8, 64))),
    *(f"smollm2-135m prefill {b} {n}" for b, n in ((1, 256), (4, 64))),
    *(f"minilm-l6 embed {b} {n}" for b, n in ((1, 64), (16, 64))),
    *(f"minilm-l6 train {b} {n}" for b, n in ((4, 32), (16, 64))),
)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        near = did_you_mean(arg, VARIANTS)
        raise UserError(f"configs/validate.py:{arg}: there is no such variant, only ':tiny'.{near}")
    c = ConfigDict()
    c.experiment = "validate"
    c.card = ""  # a device card that configs/calibrate.py wrote; empty = calibrate too, in turn with the programs below
    c.calibration = 0  # so many of the calibration programs only; 0 = all
    c.programs = PROGRAMS  # each "MODEL PHASE BATCH LENGTH"
    c.others = True  # also a convolutional net and an LSTM
    c.dtype = "float32"  # of GPT-2's computation
    c.rounds = 6  # all programs are measured in turn, so often
    c.runs = 10  # of each program in a round, with and without the profiler; long ones less often

    if arg == "tiny":
        c.programs = ("tiny decode 1 16", "tiny prefill 2 16")
        c.others = False
        c.calibration = 4
        c.rounds = 2
        c.runs = 2
    return c
