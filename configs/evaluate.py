"""Measure a trained classifier on labelled texts: accuracy with its interval, F1, confusion, calibration.

`:tiny` measures a tiny model of random weights on 120 sentences, to see the machinery run.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs._mesh import mesh_here
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(
            f"configs/evaluate.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}"
        )
    c = ConfigDict()
    c.experiment = "evaluate"
    c.mesh = mesh_here()
    c.checkpoint = ""  # a training run's workdir, a folder that transformers wrote, a hub id, or random:SIZE
    c.tokenizer = ""  # "gpt2", a folder or a hub id; empty = the one saved with the checkpoint
    c.source = "files"  # "files", or a hub data set: "hub:OWNER/NAME[/CONFIG]"
    c.input = ""  # with "files": a TSV, CSV, JSONL or parquet file; with "hub:": the name of a split
    c.text_column = "text"  # the column of the texts
    c.label_column = "label"  # the column of the labels: the model's class names or numbers
    c.dtype = "float32"  # of the computation: float32 or bfloat16
    # Of a language model, which has no classes: the answers to `question` whose likelihoods are compared.
    c.classes = ("",)  # --config.classes=negative,positive; empty = the checkpoint is a classifier
    c.question = "Review: {text}\nIs the sentiment of this review positive or negative? Answer with one word."

    if arg == "tiny":
        c.checkpoint = "random:tiny"
        c.input = str(Path(__file__).parent / "data" / "tiny_reviews.tsv")
    return c
