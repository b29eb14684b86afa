"""Train a small GPT-2 from scratch on 10,605 movie-review sentences, in a few minutes on two cores.

`:tiny` does it in seconds on 120 sentences, with no network.
"""

from ml_collections import ConfigDict

from configs import finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the settings of configs/finetune.py, where each is explained, changed for this job."""
    c = finetune.get_config(arg)
    if arg == "tiny":
        return c
    c.data.max_length = 64  # the longest sentence has 60 words
    c.model.size = "small"  # 2 layers of width 128
    c.model.resid_pdrop = 0.3  # few sentences: most of the work is not to learn them by heart
    c.model.embd_pdrop = 0.3
    c.model.attn_pdrop = 0.1
    c.train.epochs = 12
    c.train.batch_size = 128
    c.train.eval_batch_size = 256
    c.train.label_smoothing = 0.1
    c.train.token_dropout = 0.1
    c.train.optimizer.learning_rate = 1e-3
    return c
