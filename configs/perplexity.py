"""Measure a language model's perplexity on a text, in each weight format.

`:tiny` measures a tiny model of random weights on a few sentences, to see the machinery run.
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
            f"configs/perplexity.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}"
        )
    c = ConfigDict()
    c.experiment = "perplexity"
    c.mesh = mesh_here()
    c.checkpoint = "smollm2"  # or a folder that transformers wrote, a run's workdir, a GGUF file, a hub id, random:SIZE
    c.tokenizer = ""  # "gpt2", a folder or a hub id; empty = the one saved with the checkpoint
    c.input = ""  # a text file, UTF-8
    c.formats = ("float32", "bfloat16", "int8", "int4")  # weight formats to measure
    c.kv_cache = ""  # keys and values: int8 = in 8 bits, with a scale a token and head; empty = as the format computes
    c.window = 0  # tokens the model sees at a time; 0 = its context
    c.stride = 0  # tokens from one window to the next, each scored once; 0 = half a window
    c.limit = 0  # at most so many tokens of the text; 0 = all
    c.batch_size = 4  # windows at a time

    if arg == "tiny":
        c.checkpoint = "random:tiny"
        c.input = str(Path(__file__).parent / "data" / "tiny_reviews.tsv")
        c.window = 64
        c.limit = 400
    return c
