"""A method of fine-tuning: which parameters are trained, how the model is made of them, and what they come to."""

import functools
from collections.abc import Callable, Mapping

import jax

from llmjax.adapt import adalora, bottleneck, lora
from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.targets import chosen
from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of
from llmjax.models.params import At, Params, flat_tree, nested_tree
from llmjax.train.task import Tuning


def begin(
    adapt: AdaptConfig, config: ModelConfig, params: Params, head: str, key: jax.Array
) -> tuple[Params, Tuning | None]:
    """Returns what is trained of a model, as it is at first, and how a run trains it; of all, the parameters and None.

    Everything of a classification head is trained with every method: it is new.

    Raises:
        UserError: settings that do not fit the model.
    """
    if adapt.method == "full":
        return params, None
    if adapt.method == "nonzeros":
        kept = {at: leaf != 0 for at, leaf in flat_tree(params).items() if at[-1] == "kernel"}
        return params, Tuning(nested_tree(kept), lambda kept, trained, key: _pruned(kept, trained), jax.jit(_pruned))
    trained = _DRAWN[adapt.method](adapt, config, params, key)
    flat, own = flat_tree(params), family_of(config).own if head == "classifier" else ()
    parts = flat_tree(trained) | {at: leaf for at, leaf in flat.items() if at[0] in own}
    frozen = nested_tree({at: leaf for at, leaf in flat.items() if at not in parts})
    penalty = around = None
    if adapt.method == "adalora":
        budget, weight = budget_of(adapt, trained), adapt.orthogonality
        penalty, around = lambda trained: weight * adalora.orthogonality(trained), adalora.allocator(budget)
    join = functools.partial(_joined, scale=adapt.scale, dropout=adapt.dropout)
    merge = jax.jit(functools.partial(lora.merged, scale=adapt.scale))
    work = _work(config, flat, parts)
    return nested_tree(parts), Tuning(frozen, join, merge, penalty, around, work)


def _work(config: ModelConfig, params: Mapping[At, jax.Array], trained: Mapping[At, jax.Array]) -> float:
    """Returns a step's FLOPs over those of full tuning, by the products' sizes.

    Full tuning multiplies by each weight three times: forward, for the gradient of its input, and for its own
    (Chowdhery et al. 2022, "PaLM", appendix B). Of inputs there are gradients down to the lowest layer that is trained,
    of weights where they are trained.
    """
    name = config.layer.names.layer
    numbers = {f"{name}_{number}": number for number in range(config.layers)} | {name: 0}  # 0: layers are stacked
    lowest = min((numbers[at[0]] for at in trained if at[0] in numbers), default=config.layers)

    def size(leaves: Mapping[At, jax.Array]) -> int:
        return sum(
            leaf.size for at, leaf in leaves.items() if at[0] in numbers and at[-1] in ("kernel", lora.A, lora.B)
        )

    return (1 + (config.layers - lowest) / config.layers + size(trained) / size(params)) / 3


def _pruned(kept: Params, trained: Params) -> Params:
    """Returns parameters with the zeros of pruned weights, where `kept` is False."""
    masks = flat_tree(kept)
    found = {at: leaf * masks[at] if at in masks else leaf for at, leaf in flat_tree(trained).items()}
    return nested_tree(found)


def finish(adapt: AdaptConfig, trained: Params) -> Params:
    """Returns what a run trained as it is kept: of AdaLoRA exactly the budget's triplets."""
    return adalora.finished(trained, budget_of(adapt, trained)) if adapt.method == "adalora" else trained


def budget_of(adapt: AdaptConfig, trained: Params) -> adalora.Budget:
    """Returns AdaLoRA's budget: `initial_rank` and `rank` triplets a weight."""
    first = sum(leaf.size for at, leaf in flat_tree(trained).items() if at[-1] == lora.E)
    return adalora.Budget(first, first // adapt.initial_rank * adapt.rank)


def _joined(frozen: Params, trained: Params, key: jax.Array, scale: float, dropout: float) -> Params:
    return lora.joined(frozen, trained, scale, dropout, key)


def _lora(adapt: AdaptConfig, config: ModelConfig, params: Params, key: jax.Array) -> Params:
    return lora.draw(chosen(params, config, adapt.targets), adapt.rank, key)


def _adalora(adapt: AdaptConfig, config: ModelConfig, params: Params, key: jax.Array) -> Params:
    return adalora.draw(chosen(params, config, adapt.targets), adapt.initial_rank, key)


def _adapters(adapt: AdaptConfig, config: ModelConfig, params: Params, key: jax.Array) -> Params:
    return bottleneck.draw(params, config, adapt.width, key)


def _biases(adapt: AdaptConfig, config: ModelConfig, params: Params, key: jax.Array) -> Params:
    """Ben Zaken et al. 2022, "BitFit"."""
    found = {at: leaf for at, leaf in flat_tree(params).items() if at[-1] == "bias"}
    if not found:
        raise UserError(f"adapt.method='biases': a {config.family} has none; take lora")
    return nested_tree(found)


def _last_layer(adapt: AdaptConfig, config: ModelConfig, params: Params, key: jax.Array) -> Params:
    name, parts = config.layer.names.layer, list(params)
    if name in parts:
        raise UserError("adapt.method='last-layer' needs layers apart: model.scan_layers=False")
    after = [part for part in parts if part in (*family_of(config).optional, "ln_f", "norm")]
    return {part: params[part] for part in (f"{name}_{config.layers - 1}", *after)}


_DRAWN: dict[str, Callable[[AdaptConfig, ModelConfig, Params, jax.Array], Params]] = {
    "last-layer": _last_layer,
    "biases": _biases,
    "lora": _lora,
    "adalora": _adalora,
    "adapters": _adapters,
}
