"""Fine-tune a small BERT (`minilm`) on the Stanford Sentiment Treebank (SST-2), from the hub or from a folder.

`:FOLDER` reads FOLDER/train.tsv and FOLDER/dev.tsv, with columns `text` and `label`. `:scratch` trains a small GPT-2
from scratch instead, `:scratch:FOLDER` on a folder. `:tiny` takes 120 sentences.
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
    scratch = arg == "scratch" or arg.startswith("scratch:")
    _read(c, arg.removeprefix("scratch").removeprefix(":") if scratch else arg)
    c.data.label_names = ("negative", "positive")
    c.data.test_fraction = 0.0  # dev is not trained on; every other phrase is
    c.data.max_length = 64
    c.train.eval_batch_size = 256
    if scratch:
        _teach_small(c)
        return c
    c.model.init = "minilm"
    c.train.epochs = 2  # every sentence comes back in its phrases, ten times over each time
    c.train.ema_decay = 0.999  # the average of the last thousand steps does better than any of them
    return c


def _read(c: Any, folder: str) -> None:
    if not folder:
        c.data.source = "hub:stanfordnlp/sst2"
        c.data.dev = "validation"
        c.data.text_column = "sentence"
        return
    train, dev = Path(folder) / "train.tsv", Path(folder) / "dev.tsv"
    if not (train.is_file() and dev.is_file()):
        near = did_you_mean(folder, ["tiny", "scratch"])
        raise UserError(f"configs/sst2.py:{folder}: {folder} has no train.tsv and dev.tsv.{near}")
    c.data.source, c.data.train, c.data.dev = "files", str(train), str(dev)


def _teach_small(c: Any) -> None:
    """A fresh GPT-2 of two layers learns what a linear teacher answers; docs/sst2.md has what was tried."""
    c.data.tokenizer = "gpt2-words"
    c.model.size = "small"
    c.model.n_layer = 2  # the first may join neighbours, the second weighs them
    c.model.n_embd = 96
    c.model.n_head = 6
    c.model.embedding_std = 0.05
    c.model.position_std = 0.05
    c.model.dropout = 0.0  # made-up texts never come twice: there is nothing to learn by heart
    c.model.attention_dropout = 0.0
    c.train.distill_steps = 8000
    c.train.turning_words = ("but",)
    c.train.epochs = 0  # labels are learnt through the teacher alone
    c.train.batch_size = 128
    c.train.ema_decay = 0.998
    c.train.optimizer.learning_rate = 3e-3
