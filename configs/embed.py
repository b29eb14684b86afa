"""Turn texts into vectors, a .npy or .parquet of them, and find the texts nearest to a query.

`:tiny` does it with a tiny model of random weights on 120 sentences: its vectors mean nothing.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs._mesh import mesh_here
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(f"configs/embed.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}")
    c = ConfigDict()
    c.experiment = "embed"
    c.mesh = mesh_here()
    c.checkpoint = "minilm"  # minilm (fetched by pip), a folder that transformers wrote, a hub id, or random:SIZE
    c.tokenizer = ""  # "gpt2", a folder or a hub id; empty = the one saved with the checkpoint
    c.input = ""  # a file: .tsv, .csv and .jsonl by column, any other one text a line; empty = standard input
    c.column = "text"  # the column (or key) of the texts in a .tsv, .csv or .jsonl
    c.output = ""  # .npy (float32, a row a text) or .parquet (text, embedding); empty = embeddings.npy in the workdir
    c.query = ""  # prints the texts nearest to this one, by cosine
    c.nearest = 5  # so many of them
    c.dtype = "float32"  # of the computation: float32 or bfloat16

    if arg == "tiny":
        c.checkpoint = "random:tiny"
        c.input = str(Path(__file__).parent / "data" / "tiny_reviews.tsv")
        c.query = "a warm and funny film"
    return c
