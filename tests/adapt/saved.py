"""An adapter as if it had been trained, in a folder beside its base."""

from pathlib import Path

import jax

from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.folders import save_adapter
from llmjax.adapt.tuning import begin, finish
from llmjax.models.params import Head, flat_tree, nested_tree
from llmjax.models.weights import save_pretrained
from tests.adapt.models import FAMILIES, drawn


def moved(trained):
    """Returns what is trained as if training had moved it."""
    parts = flat_tree(trained)
    keys = jax.random.split(jax.random.key(5), len(parts))
    drawn = {
        at: leaf + 0.1 * jax.random.normal(key, leaf.shape) for key, (at, leaf) in zip(keys, parts.items(), strict=True)
    }
    return nested_tree(drawn)


def saved(folder: Path, family: str, method: str, head: Head = "classifier", **more):
    """Saves a base and an adapter of it in `folder`; returns the model's config and its whole parameters."""
    config = FAMILIES[family]
    params = drawn(family, head)
    save_pretrained(folder / "base", config, params, head)
    adapt = AdaptConfig(method, rank=2, initial_rank=3, width=4, **more)
    trained, tuning = begin(adapt, config, params, head, jax.random.key(2))
    assert tuning is not None
    trained = finish(adapt, moved(trained))
    save_adapter(folder / "adapter", config, trained, head, adapt, str(folder / "base"))
    return config, tuning.merge(tuning.frozen, trained)
