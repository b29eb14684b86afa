"""Train a small GPT-2 from scratch on the Stanford Sentiment Treebank (SST-2), from the hub or from a folder.

`:FOLDER` reads FOLDER/train.tsv and FOLDER/dev.tsv, with columns `text` and `label`. `:tiny` takes 120 sentences.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import finetune
from llmjax.errors import UserError, did_you_mean


def get_config(arg: str = "") -> ConfigDict:
    """Returns the settings of configs/finetune.py, where each is explained, changed for this job."""
    c: Any = finetune.get_config("tiny" if arg == "tiny" else "")
    if arg == "tiny":
        return c
    if arg:
        train, dev = Path(arg) / "train.tsv", Path(arg) / "dev.tsv"
        if not (train.is_file() and dev.is_file()):
            near = did_you_mean(arg, ["tiny"])
            raise UserError(f"configs/sst2.py:{arg}: there is no folder {arg} with train.tsv and dev.tsv in it.{near}")
        c.data.source, c.data.train, c.data.dev = "files", str(train), str(dev)
    else:
        c.data.source = "hub:stanfordnlp/sst2"
        c.data.dev = "validation"
        c.data.text_column = "sentence"
    c.data.label_names = ("negative", "positive")
    c.data.test_fraction = 0.0  # dev is not trained on; every other phrase is
    c.data.max_length = 64
    c.data.tokenizer = "gpt2-words"
    c.model.size = "small"
    c.model.n_layer = 1  # more layers learn the phrases by heart
    c.model.n_embd = 64
    c.model.n_head = 2
    c.model.embedding_std = 0.01
    c.model.position_std = 0.1
    c.model.resid_pdrop = 0.2
    c.model.embd_pdrop = 0.2
    c.model.attn_pdrop = 0.1
    c.train.epochs = 2  # the phrases are parts of each other: more passes only learn them by heart
    c.train.batch_size = 128
    c.train.eval_batch_size = 256
    c.train.label_smoothing = 0.1
    c.train.token_dropout = 0.1
    c.train.prefix_weight = 0.5
    c.train.ema_decay = 0.998
    c.train.optimizer.learning_rate = 1e-3
    return c
