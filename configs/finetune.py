"""Train a classifier on labelled texts: your own file, a hub data set or the packaged movie reviews.

`:tiny` does it in seconds on 120 sentences that lie beside this file.
"""

from pathlib import Path

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs._adapt import adapt, teacher
from configs._mesh import mesh_here
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny".

    A placeholder is None until it is set: what it should be depends on whether training starts from fresh or pretrained
    weights, and on the texts. llmjax/train/defaults.py chooses then, and the run says what.
    """
    if arg not in VARIANTS:
        raise UserError(
            f"configs/finetune.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}"
        )
    c = ConfigDict()
    c.experiment = "finetune"
    c.mesh = mesh_here()

    c.data = ConfigDict()
    c.data.source = ""  # "files", "vader_movies" or "hub:OWNER/NAME[/CONFIG]"; empty = files if any, else vader_movies
    c.data.train = ""  # a TSV, CSV, JSONL or parquet file; with "hub:": the name of a split
    c.data.dev = ""  # chooses the best parameters; empty = split off from train
    c.data.test = ""  # measured once, at the end; empty = split off from train
    c.data.text_column = "text"  # the column of the texts
    c.data.label_column = "label"  # the column of the labels, whole numbers or names
    c.data.label_names = ()  # the classes in order; empty = those of the source, else those found, sorted
    c.data.dev_fraction = 0.1  # of train, where dev is empty
    c.data.test_fraction = 0.1  # of train, where test is empty
    c.data.limit = 0  # at most so many examples a split; 0 = all
    c.data.seed = 0  # of splits made here
    # "gpt2", "gpt2-words" (lower case), "train" (made of the training texts), a folder or a hub id; empty = that of
    # model.init; for fresh weights "gpt2-words", or "train" where that takes many tokens a character, as for Chinese.
    c.data.tokenizer = ""
    c.data.max_length = placeholder(int)  # tokens a text; longer texts are cut and counted

    c.model = ConfigDict()
    c.model.init = ""  # start from these weights: minilm, a folder, a run's workdir or a hub id; empty = fresh ones
    # Of a fresh model: tiny, small, distilgpt2, gpt2, gpt2-medium, gpt2-large or gpt2-xl; empty = 2 narrow layers.
    c.model.size = ""
    c.model.n_layer = 0  # layers of a fresh model; 0 = as in size
    c.model.n_embd = placeholder(int)  # width of a fresh model
    c.model.n_head = placeholder(int)  # heads of a fresh model
    c.model.embedding_std = placeholder(float)  # standard deviation of a fresh model's token embeddings
    c.model.position_std = placeholder(
        float
    )  # and of its position embeddings: layer norm keeps tokens small beside large ones
    c.model.dropout = placeholder(float)  # of the embeddings and of what each layer adds
    c.model.attention_dropout = placeholder(float)  # of the attention weights
    c.model.dtype = "float32"  # of the computation: float32 or bfloat16; parameters stay float32
    c.model.scan_layers = False  # one compiled layer in a loop: deep models compile faster, small ones run slower
    c.model.remat = False  # compute activations again in the backward pass: less memory, more time

    c.adapt = adapt()
    c.teacher = teacher()

    c.train = ConfigDict()
    c.train.epochs = placeholder(int)  # passes over the training texts and their labels
    c.train.batch_size = placeholder(int)  # texts a step
    c.train.eval_batch_size = 128  # texts a batch in evaluations
    c.train.max_buckets = 4  # padded lengths at most; the step is compiled once for each
    c.train.eval_every = 0  # steps between evaluations on dev, each followed by a checkpoint; 0 = once an epoch
    c.train.metric = "accuracy"  # on dev, chooses the best parameters: accuracy, macro_f1 or loss
    c.train.patience = 0  # evaluations without a better metric after which training stops; 0 = never
    c.train.keep = 2  # checkpoints to resume from that are kept
    c.train.seed = 0  # of fresh parameters, dropout and the order of the batches
    c.train.label_smoothing = placeholder(float)  # share of each label given to all classes alike
    c.train.token_dropout = placeholder(float)  # share of input tokens replaced by the end-of-text token while training
    c.train.ema_decay = placeholder(
        float
    )  # of the moving average of the parameters, which is then what is saved; 0 = off
    c.train.wandb = False  # send the metrics to Weights & Biases too (pip install wandb)
    c.train.optimizer = _optimizer()
    c.train.optimizer.learning_rate = placeholder(float)  # the peak
    # Batches of made-up texts labelled by a linear classifier of token pairs, before the labels are learnt; 0 = none.
    c.train.distill_steps = placeholder(int)
    c.train.turning_words = ()  # such as "but": to that classifier what stands before one counts for half
    c.train.pretrain_epochs = 0  # passes of next-token training over the same texts, before classification; 0 = none
    c.train.pretrain_batch_size = 32  # texts a step there
    c.train.pretrain_optimizer = _optimizer()
    c.train.pretrain_optimizer.learning_rate = 1e-3

    c.examples = ()  # texts to classify at the end; empty = some of the data

    if arg == "tiny":
        c.data.source = "files"
        c.data.train = str(Path(__file__).parent / "data" / "tiny_reviews.tsv")
        c.data.label_names = ("negative", "positive")
        c.data.max_length = 32
        c.model.size = "tiny"
        c.model.dropout = c.model.attention_dropout = 0.1
        c.train.epochs = 3
        c.train.batch_size = 16
        c.train.label_smoothing = c.train.token_dropout = c.train.ema_decay = 0.0
        c.train.max_buckets = 1
        c.train.optimizer.learning_rate = 3e-3
    return c


def _optimizer() -> ConfigDict:
    c = ConfigDict()
    c.schedule = "cosine"  # from the peak down: cosine, linear or constant
    c.warmup_fraction = 0.06  # of all updates, in which the rate rises to the peak
    c.final_fraction = 0.0  # of the peak, at the end
    c.b1 = 0.9  # Adam's decay of the mean gradient
    c.b2 = 0.999  # Adam's decay of the mean squared gradient
    c.eps = 1e-8  # Adam's guard against division by zero
    c.weight_decay = 0.01  # of matrices; never of biases and layer norms
    c.decay_embeddings = False  # whether it decays the embeddings too
    c.clip_norm = 1.0  # gradients are scaled down to this norm; 0 = no clipping
    c.accumulate = 1  # batches whose mean gradient makes one update
    return c
