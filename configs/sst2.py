"""Train a small GPT-2 from scratch on the Stanford Sentiment Treebank (SST-2), from the hub or from two TSV files.

Files: --config.data.source=files --config.data.train=FILE --config.data.dev=FILE. `:tiny` takes 120 sentences instead.
"""

from ml_collections import ConfigDict

from configs import finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the settings of configs/finetune.py, where each is explained, changed for this job."""
    c = finetune.get_config(arg)
    if arg == "tiny":
        return c
    c.data.source = "hub:stanfordnlp/sst2"
    c.data.text_column = "sentence"
    c.data.label_names = ("negative", "positive")
    c.data.max_length = 64
    c.model.size = "small"  # 2 layers of width 128
    c.model.resid_pdrop = 0.3
    c.model.embd_pdrop = 0.3
    c.model.attn_pdrop = 0.1
    c.train.epochs = 8
    c.train.batch_size = 128
    c.train.eval_batch_size = 256
    c.train.label_smoothing = 0.1
    c.train.token_dropout = 0.1
    c.train.optimizer.learning_rate = 1e-3
    return c
