"""Train a small GPT-2 from scratch on 10,605 movie-review sentences, in a few minutes on two cores.

`:tiny` does it in seconds on 120 sentences, with no network.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the settings of configs/finetune.py, where each is explained, changed for this job."""
    c: Any = finetune.get_config(arg)
    if arg == "tiny":
        return c
    c.data.max_length = 64  # the longest sentence has 60 words
    c.data.tokenizer = "gpt2-words"  # lower case: with so few sentences a word should be one token
    c.model.size = "small"  # 2 layers,
    c.model.n_embd = 64  # half as wide: twice the width learns the sentences by heart and no more
    c.model.n_head = 2
    c.model.embedding_std = 0.1
    c.model.resid_pdrop = 0.5
    c.model.embd_pdrop = 0.5
    c.model.attn_pdrop = 0.1
    c.train.epochs = 6
    c.train.batch_size = 32
    c.train.eval_batch_size = 256
    c.train.label_smoothing = 0.1
    c.train.token_dropout = 0.1
    c.train.ema_decay = 0.998
    c.train.optimizer.learning_rate = 1e-3
    return c
