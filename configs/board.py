"""Every way to make a model smaller, cheaper to tune or faster, side by side: accuracy, time here and on chips, memory.

`:perplexity` puts a language model on a text of yours; `:tiny` takes a minute.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs._adapt import adapt
from configs._mesh import mesh_here
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "perplexity", "tiny")
TINY = str(Path(__file__).parent / "data" / "tiny_reviews.tsv")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is one of `VARIANTS`."""
    if arg not in VARIANTS:
        near = did_you_mean(arg, VARIANTS)
        raise UserError(f"configs/board.py:{arg}: there is no such variant, only ':perplexity' and ':tiny'.{near}")
    c = ConfigDict()
    c.experiment = "board"
    c.mesh = mesh_here()
    c.task = "sentiment"  # sentiment: accuracy on labelled texts; perplexity: of a text
    c.base = "minilm"  # a trained model: minilm, smollm2, a folder or a hub id
    # Steps with "+" between, the first row being what others are held against: a method of configs/finetune.py's
    # adapt, distil (of the row "full"), magnitude-, wanda- or sparsegpt-50 (or -2:4), mlp-, heads- or layers-50,
    # round-, gptq- or awq-4, kv-8 (keys and values), bfloat16, int8, int4; base = none of them.
    c.strategies = (
        "full", "last-layer", "biases", "lora", "adalora", "adapters", "full+bfloat16", "full+int8", "full+gptq-4",
        "full+magnitude-50", "full+wanda-50", "full+wanda-50+nonzeros", "full+mlp-50", "full+mlp-50+lora",
        "full+heads-50+lora", "full+layers-33+lora", "layers-50+distil", "full+layers-33+lora+int8",
    )  # fmt: skip
    c.save = ()  # of the strategies, those whose models are written to models/ in the workdir, as folders
    c.targets = ("tpu:v5e:1x1", "gpu:h100")  # chips to predict the time on
    c.batch = 8  # rows of the execution that is timed
    c.runs = 20  # executions that are timed; the median counts
    c.epochs = 1  # passes over the labelled texts, of every training
    c.steps = 100  # of every training on a text
    c.batch_size = 32  # texts or windows a step
    c.seed = 0  # of heads, adapters, the order of batches and calibration
    c.adapt = adapt()  # of every row that trains a part; its method is the row's

    c.data = ConfigDict()  # of sentiment, as in configs/finetune.py
    c.data.source = ""
    c.data.train = ""
    c.data.dev = ""
    c.data.test = ""
    c.data.text_column = "text"
    c.data.label_column = "label"
    c.data.label_names = ()
    c.data.dev_fraction = 0.1
    c.data.test_fraction = 0.1
    c.data.limit = 0
    c.data.seed = 0

    c.text = ConfigDict()  # of perplexity, as in configs/lm.py: what is trained and calibrated on, and what is held out
    c.text.source = "files"
    c.text.train = ""
    c.text.dev = ""
    c.text.text_column = "text"
    c.text.dev_fraction = 0.1
    c.limit = 10_000  # tokens that are held out at most

    if arg == "perplexity":
        c.task = "perplexity"
        c.base = "smollm2"
        c.batch = 1
        c.batch_size = 4
        c.strategies = (
            "base", "bfloat16", "int8", "smooth-75+int8", "kv-8", "round-4", "gptq-4", "awq-4", "magnitude-50",
            "wanda-50", "sparsegpt-50", "wanda-2:4", "mlp-25+lora", "layers-20+lora",
        )  # fmt: skip
    if arg == "tiny":
        c.data.source, c.data.train, c.data.label_names = "files", TINY, ("negative", "positive")
        c.strategies = ("full", "lora", "full+wanda-50", "full+mlp-50", "full+int8")
        c.targets = ()
        c.runs = 3
    return c
