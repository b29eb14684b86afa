"""Classify texts with a trained model: one text, a file of any length, or standard input.

`:tiny` classifies one sentence with a tiny model of random weights, to see the machinery run: its label means nothing.
"""

from ml_collections import ConfigDict

from configs._mesh import mesh_here
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(
            f"configs/classify.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}"
        )
    c = ConfigDict()
    c.experiment = "classify"
    c.mesh = mesh_here()
    c.checkpoint = ""  # a training run's workdir, a folder that transformers wrote, a hub id, or random:SIZE
    c.tokenizer = ""  # "gpt2", a folder or a hub id; empty = the one saved with the checkpoint
    c.text = ""  # one text to classify
    c.input = ""  # or a file: .tsv, .csv and .jsonl by column, any other one text a line; empty = standard input
    c.column = "text"  # the column (or key) of the texts in a .tsv, .csv or .jsonl
    c.output = ""  # a .jsonl file to write, one object a text in input order; empty = standard output
    c.dtype = "float32"  # of the computation: float32 or bfloat16

    if arg == "tiny":
        c.checkpoint = "random:tiny"
        c.text = "I love this movie."
    return c
