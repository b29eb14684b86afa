"""Fit the cards of GPUs that are not here to published kernel times, and print how far off each is held out.

`:tiny` fits one chip.
"""

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        near = did_you_mean(arg, VARIANTS)
        raise UserError(f"configs/fit_card.py:{arg}: there is no such variant, only ':tiny'.{near}")
    c = ConfigDict()
    c.experiment = "fit_card"
    c.chips = ""  # cards with commas between them, as gpu:h100,gpu:a100; empty = all that were measured
    c.aiconfigurator = True  # fetch aiconfigurator-core's tables by pip (78 MB, Apache-2.0; data only, no code is run)
    c.neusight = ""  # a folder with NeuSight's CSV files (its scripts/asplos/data/dataset); empty = without them

    if arg == "tiny":
        c.chips = "gpu:h100"
    return c
