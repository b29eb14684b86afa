"""Hold predictions against published times: the programs of a table's rows, compiled for their chips.

`:tiny` takes three rows that come with the tests.
"""

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        near = did_you_mean(arg, VARIANTS)
        raise UserError(f"configs/published.py:{arg}: there is no such variant, only ':tiny'.{near}")
    c = ConfigDict()
    c.experiment = "published"
    c.table = ""  # a CSV file of published figures, with the columns that docs/published.md lists
    c.tiers = "K,A,B,D,C"  # which rows, in this order; docs/published.md says what the tiers are
    c.chips = ""  # cards with commas between them, as gpu:a100,tpu:v5e; empty = all
    c.minutes = 60.0  # compile for so long at most; what is compiled is kept in the workdir, and a further run goes on

    if arg == "tiny":
        c.table = "tests/testdata/published/tiny.csv"
        c.minutes = 5.0
    return c
