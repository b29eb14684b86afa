"""How to train where the config leaves it open: what suits fresh weights ruins pretrained ones, and the other way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

LONGEST = 256  # tokens of a text, unless asked for: attention's cost grows with the square
FIT = 0.98  # share of the texts that are not cut, where `LONGEST` allows it
TAUGHT_TOKENS = 5120  # of a batch of made-up texts
HEAD = 16  # width of an attention head of the recipes' models

# The recipe of configs/quickstart.py before there was a teacher, chosen on the movie reviews.
LABELS: dict[str, Any] = {
    "model.n_embd": 64,
    "model.embedding_std": 0.1,
    "model.position_std": 0.02,
    "model.dropout": 0.5,
    "model.attention_dropout": 0.1,
    "train.epochs": 6,
    "train.batch_size": 32,
    "train.label_smoothing": 0.1,
    "train.token_dropout": 0.1,
    "train.ema_decay": 0.998,
    "train.distill_steps": 0,
    "train.optimizer.learning_rate": 1e-3,
}
# That of configs/sst2.py, chosen there (docs/sst2.md), with fewer steps: 2,400 of its 8,000 gave 0.819 of 0.823.
TAUGHT: dict[str, Any] = {
    "model.n_embd": 96,
    "model.embedding_std": 0.05,
    "model.position_std": 0.05,
    "model.dropout": 0.0,  # made-up texts never come twice: there is nothing to learn by heart
    "model.attention_dropout": 0.0,
    "train.epochs": 0,
    "train.label_smoothing": 0.0,
    "train.token_dropout": 0.0,
    "train.ema_decay": 0.998,
    "train.distill_steps": 2400,
    "train.optimizer.learning_rate": 3e-3,
}
# Devlin et al. 2019, appendix A.3: 2 to 4 epochs, batches of 16 or 32, rates of 2e-5 to 5e-5; the model's dropout.
PRETRAINED: dict[str, Any] = {
    "train.epochs": 3,
    "train.batch_size": 32,
    "train.label_smoothing": 0.0,
    "train.token_dropout": 0.0,
    "train.ema_decay": 0.0,
    "train.distill_steps": 0,
    "train.optimizer.learning_rate": 5e-5,
}


# Of a part of a model beside what stays: the best of those that were tried on dev (docs/adapt.md, "Rates").
PART_RATES = {"lora": 1e-3, "adalora": 1e-2, "adapters": 3e-3, "biases": 5e-3, "last-layer": 1e-3}


@dataclass(frozen=True)
class Start:
    """What training starts from, as far as it decides how to train.

    method: of `adapt.METHODS`.
    width: of the fresh model that was asked for by its size or width; 0 = none was, or the weights are pretrained.
    lengths_N: tokens of training texts, or of a sample of them.
    """

    pretrained: bool
    width: int
    lengths_N: Int[np.ndarray, "N"]
    method: str = "full"


def resolve(settings: Mapping[str, Any], start: Start) -> dict[str, Any]:
    """Returns a value for every setting, by its dotted name, that is None in `settings` (dotted names too).

    Fresh weights learn from a linear teacher (llmjax/train/teacher.py), or from labels alone where epochs are asked for
    and no teacher is. Their rate falls with the width beyond the recipe's (Yang et al. 2022, "Tensor Programs V", where
    Adam's rate for hidden matrices goes with 1 / width).
    """
    labels = settings.get("train.epochs") and not settings.get("train.distill_steps")
    recipe = dict(PRETRAINED if start.pretrained else LABELS if labels else TAUGHT)
    if not start.pretrained:
        usual = recipe.pop("model.n_embd")
        width = start.width or usual
        recipe |= {"model.n_embd": width, "model.n_head": width // HEAD} if not start.width else {}
        recipe["train.optimizer.learning_rate"] *= min(1.0, usual / width)
    if start.method in PART_RATES:
        recipe["train.optimizer.learning_rate"] = PART_RATES[start.method]
    length = settings.get("data.max_length") or _length(start.lengths_N)
    recipe = {"data.max_length": length, "train.batch_size": max(16, TAUGHT_TOKENS // length // 8 * 8)} | recipe
    return {name: value for name, value in recipe.items() if name in settings and settings[name] is None}


def _length(lengths_N: Int[np.ndarray, "N"]) -> int:
    """Returns the least multiple of 8 within which `FIT` of the texts are, `LONGEST` at most."""
    fitting = int(np.quantile(lengths_N, FIT, method="higher"))
    return min(LONGEST, max(8, -(-fitting // 8) * 8))


def told(chosen: Mapping[str, Any], pretrained: bool) -> str:
    """Returns the line that says what was chosen, as one would write it on the command line."""
    names = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in chosen.items()}
    start = "pretrained" if pretrained else "fresh"
    return f"chosen for {start} weights: {', '.join(f'{name}={value}' for name, value in names.items())}"
