"""Train a language model on your own texts, or go on training one: files, folders of them, or a set of the hub.

`:tiny` does it in seconds on the sentences that lie beside this file.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs._adapt import adapt, teacher
from configs._mesh import mesh_here
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(f"configs/lm.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}")
    c = ConfigDict()
    c.experiment = "lm"
    c.mesh = mesh_here()

    c.data = ConfigDict()
    c.data.source = "files"  # "files", or a hub data set: "hub:OWNER/NAME[/CONFIG]"
    c.data.train = ""  # a .txt or .md (one text), a .jsonl (one a line), a folder of them; with "hub:": a split
    c.data.dev = ""  # the same; chooses the best parameters; empty = the end of train
    c.data.text_column = "text"  # of .jsonl and of the hub's sets
    c.data.dev_fraction = 0.1  # of train's characters, where dev is empty
    c.data.tokenizer = ""  # "gpt2", a folder, a hub id; empty = of model.init, else "gpt2"

    c.model = ConfigDict()
    c.model.init = ""  # start from these weights: a folder, a run's workdir or a hub id; empty = fresh ones
    c.model.size = "small"  # of a fresh model: tiny, small, distilgpt2, gpt2, gpt2-medium, gpt2-large, gpt2-xl
    c.model.n_layer = 0  # layers of a fresh model; 0 = as in size
    c.model.n_embd = 0  # width of a fresh model; 0 = as in size
    c.model.n_head = 0  # heads of a fresh model; 0 = as in size
    c.model.dropout = 0.1  # of embeddings, attention weights and what each layer adds, where the family has it
    c.model.dtype = "float32"  # of the computation: float32 or bfloat16; parameters stay float32
    c.model.scan_layers = False  # one compiled layer in a loop: deep models compile faster, small ones run slower
    c.model.remat = False  # compute activations again in the backward pass: less memory, more time

    c.adapt = adapt()
    c.teacher = teacher()

    c.train = ConfigDict()
    c.train.steps = 1000  # batches
    c.train.length = 128  # tokens of a window; 0 = as many as the model reads
    c.train.batch_size = 16  # windows a step
    c.train.eval_every = 200  # steps between evaluations on dev, each with samples and a checkpoint; 0 = once an epoch
    c.train.patience = 0  # evaluations without a lower loss after which training stops; 0 = never
    c.train.keep = 2  # checkpoints to resume from that are kept
    c.train.seed = 0  # of fresh parameters, dropout and the order of the windows
    c.train.ema_decay = 0.0  # of the moving average of the parameters, which is then what is saved; 0 = off
    c.train.wandb = False  # send the metrics to Weights & Biases too (pip install wandb)
    c.train.optimizer = ConfigDict()
    c.train.optimizer.learning_rate = 0.0  # the peak; 0 = 1e-3 for fresh weights, 5e-5 for trained ones
    c.train.optimizer.schedule = "cosine"  # from the peak down: cosine, linear or constant
    c.train.optimizer.warmup_fraction = 0.06  # of all updates, in which the rate rises to the peak
    c.train.optimizer.final_fraction = 0.1  # of the peak, at the end
    c.train.optimizer.b1 = 0.9  # Adam's decay of the mean gradient
    c.train.optimizer.b2 = 0.95  # Adam's decay of the mean squared gradient
    c.train.optimizer.eps = 1e-8  # Adam's guard against division by zero
    c.train.optimizer.weight_decay = 0.1  # of matrices; never of biases and layer norms
    c.train.optimizer.decay_embeddings = False  # whether it decays the embeddings too
    c.train.optimizer.clip_norm = 1.0  # gradients are scaled down to this norm; 0 = no clipping
    c.train.optimizer.accumulate = 1  # batches whose mean gradient makes one update

    c.prompts = ("The ",)  # continued at every evaluation, each time by the likeliest tokens
    c.sample_tokens = 24  # new tokens of each

    if arg == "tiny":
        c.data.train = str(Path(__file__).parent / "data" / "tiny_texts.txt")
        c.model.size = "tiny"
        c.train.steps = 12
        c.train.length = 32
        c.train.batch_size = 4
        c.train.eval_every = 6
        c.train.optimizer.learning_rate = 3e-3
        c.sample_tokens = 4
    return c
