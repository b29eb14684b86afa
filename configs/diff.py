"""Compare what two programs cost: cycles, FLOPs and bytes by op and role. With fail_above a guard for CI.

`:tiny` compares one program as two versions of XLA compiled it.
"""

from pathlib import Path

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(f"configs/diff.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}")
    c = ConfigDict()
    c.experiment = "diff"
    c.before = ""  # a cost.json, the folder of a cost job, or a file of HLO text
    c.after = ""  # likewise
    c.fail_above = ""  # e.g. 2%: leave with status 1 where total cycles, FLOPs or bytes grew by more; empty = never
    c.top = 12  # lines in the table of ops

    if arg == "tiny":
        hlo = Path(__file__).resolve().parent.parent / "tests" / "testdata" / "hlo"
        c.before = str(hlo / "cpu_0.10.2_block_f32.hlo")
        c.after = str(hlo / "cpu_0.12.0.1_block_f32.hlo")
    return c
