"""How much memory training needs at least, from shapes, before a parameter is made."""

from llmjax.memory import tree_bytes
from llmjax.models.config import ModelConfig
from llmjax.models.memory import require_model
from llmjax.models.params import Head, param_shapes


def training_bytes(
    config: ModelConfig, rows: int, tokens: int, averaged: bool, head: Head = "classifier", part: int | None = None
) -> dict[str, int]:
    """Returns the bytes of a step in float32 by what they are for: a lower bound, and of the largest parts only.

    Parameters, their gradients, Adam's two moments and, where `averaged`, their moving average. Of each layer's
    activations what its backward pass cannot do without: two norms' inputs, queries, keys and values, attention's
    weights and result, and the MLP's inner values; with `remat` the layers' inputs and one layer's rest. Of a language
    head the logits and their gradient.

    part: bytes of the parameters that are trained; None: all are.
    """
    width, inner = config.width, config.layer.inner
    size = tree_bytes(param_shapes(config, head))
    trained = size if part is None else part
    logits = 2 * 4 * rows * tokens * config.vocab_size if head == "lm" else 0
    item = 2 if config.dtype == "bfloat16" else 4
    inside = (2 + 3 + 1) * width + config.layer.heads * tokens + inner
    layers = config.layers * width + inside if config.remat else config.layers * inside
    return {
        "parameters": size,
        "gradients": trained,
        "Adam's moments": 2 * trained,
        "moving average": trained if averaged else 0,
        f"activations of {rows} texts of {tokens} tokens": item * rows * tokens * layers + logits,
    }


def check_training(
    config: ModelConfig,
    rows: int,
    eval_rows: int,
    tokens: int,
    averaged: bool,
    free: int | None,
    *,
    head: Head = "classifier",
    part: int | None = None,
) -> None:
    """Raises `UserError` where batches of `rows` texts of `tokens`, or evaluation in `eval_rows`, cannot fit in `free`.

    None of `free`, bytes of a device, is "unknown", and everything passes. On a mesh the line names one that would do.
    """
    needed = training_bytes(config, rows, tokens, averaged, head, part)
    state = {name: needed[name] for name in ("parameters", "Adam's moments", "moving average")}
    width = max(config.layer.inner, config.layer.heads * tokens)  # of one layer, computed and gone before the next
    texts = {f"evaluation of {eval_rows} texts of {tokens} tokens": 4 * eval_rows * tokens * width}
    smaller = (("train.batch_size", needed), ("train.eval_batch_size", state | texts))
    length = "train.length" if head == "lm" else "data.max_length"
    for setting, parts in smaller:
        require_model(config, parts, f"take a smaller model, {setting} or {length}", free)
