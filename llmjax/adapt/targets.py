"""Which weights of a model an adapter stands beside: every product of its layers, or those that targets name."""

import difflib
import fnmatch
from collections.abc import Sequence
from typing import Any

from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of
from llmjax.models.params import At, flat_tree


def products(params: Any, config: ModelConfig) -> dict[At, tuple[int, ...]]:
    """Returns the modules that multiply by a weight, heads left out, with the weight's shape [..., D, E]."""
    heads = family_of(config).own
    found = {at[:-1]: leaf.shape for at, leaf in flat_tree(params).items() if at[-1] == "kernel"}
    return {at: shape for at, shape in found.items() if at[0] not in heads}


def chosen(params: Any, config: ModelConfig, targets: Sequence[str]) -> dict[At, tuple[int, ...]]:
    """Returns those of `products` that a target names: by the end of the path (`c_attn`, `mlp/c_fc`), or as a pattern
    of the whole path (`h_[01]/*`); without targets, all.

    Raises:
        UserError: a target names none.
    """
    every = products(params, config)
    if not targets:
        return every
    named = {target: [at for at in every if _matches("/".join(at), target)] for target in targets}
    for target, found in named.items():
        if not found:
            endings = sorted({"/".join(at[-n:]) for at in every for n in (1, 2)})
            near = difflib.get_close_matches(target, endings, n=3, cutoff=0.4) or endings[:6]
            raise UserError(
                f"adapt.targets: {target!r} names no weight of this {config.family}; some of its paths end in "
                f"{', '.join(near)}"
            )
    wanted = {at for found in named.values() for at in found}
    return {at: shape for at, shape in every.items() if at in wanted}


def _matches(path: str, target: str) -> bool:
    return path == target or path.endswith(f"/{target}") or fnmatch.fnmatchcase(path, target)
