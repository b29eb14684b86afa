"""Measure this machine and write a device card: its clock, peaks, bandwidths, overheads, and the cycle model's terms.

`:tiny` measures a few programs only.
"""

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        near = did_you_mean(arg, VARIANTS)
        raise UserError(f"configs/calibrate.py:{arg}: there is no such variant, only ':tiny'.{near}")
    c = ConfigDict()
    c.experiment = "calibrate"
    c.target = ""  # a TPU that need not be here, as tpu:v5e:2x2: fit the terms to its compiler's own estimates instead
    c.runs = 6  # of each program in a round; long ones less often
    c.programs = 0  # so many of the calibration programs only; 0 = all

    if arg == "tiny":
        c.runs = 2
        c.programs = 4
    return c
