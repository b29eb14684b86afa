"""A method of fine-tuning: which parameters are trained, how the model is made of them, and what they come to."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from llmjax.adapt import adalora, bottleneck, lora
from llmjax.adapt.targets import chosen
from llmjax.errors import UserError, did_you_mean
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of
from llmjax.models.params import Params
from llmjax.train.task import Tuning


@dataclasses.dataclass(frozen=True)
class AdaptConfig:
    """How much of a model is trained.

    method: one of `METHODS`.
    targets: weights that LoRA and AdaLoRA stand beside, as `targets.chosen` reads them; empty = every product.
    rank: of LoRA; of AdaLoRA the mean over its weights in the end.
    initial_rank: of each of AdaLoRA's weights at first.
    alpha: what is added is multiplied by alpha / rank (AdaLoRA: by alpha / initial_rank), or alpha / sqrt(rank) where
        `rank_stabilised`.
    dropout: of the inputs of what is added.
    orthogonality: weight of AdaLoRA's penalty in the loss.
    width: of the bottlenecks of adapters.
    """

    method: str = "full"
    targets: Sequence[str] = ()
    rank: int = 8
    initial_rank: int = 12
    alpha: float = 16.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    orthogonality: float = 0.1
    width: int = 32

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            near = did_you_mean(self.method, METHODS)
            raise UserError(f"adapt.method is {self.method!r}: it must be one of {', '.join(METHODS)}.{near}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"adapt.dropout is {self.dropout}: it must be in [0, 1)")
        for name in ("rank", "alpha", "width"):
            if not getattr(self, name) > 0:
                raise UserError(f"adapt.{name} is {getattr(self, name)}: it must be above 0")
        if self.orthogonality < 0:
            raise UserError(f"adapt.orthogonality is {self.orthogonality}: it must be 0 or more")
        if self.method == "adalora" and self.initial_rank < self.rank:
            raise UserError(
                f"adapt.initial_rank is {self.initial_rank}, below adapt.rank={self.rank}, to which AdaLoRA prunes"
            )
        if self.rank_stabilised and self.method != "lora":
            raise UserError(f"adapt.rank_stabilised is of lora, and adapt.method is {self.method!r}")

    @property
    def scale(self) -> float:
        """What the added product is multiplied by; that of AdaLoRA as peft has it."""
        if self.method == "adalora":
            return self.alpha / (self.initial_rank + 1e-5)
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)


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
    trained = METHODS[adapt.method](adapt, config, params, key)
    flat, own = flatten_dict(params), family_of(config).own if head == "classifier" else ()
    parts = flatten_dict(trained) | {at: leaf for at, leaf in flat.items() if at[0] in own}
    frozen = unflatten_dict({at: leaf for at, leaf in flat.items() if at not in parts})
    penalty = around = None
    if adapt.method == "adalora":
        budget, weight = budget_of(adapt, trained), adapt.orthogonality
        penalty, around = lambda trained: weight * adalora.orthogonality(trained), adalora.allocator(budget)
    join = functools.partial(_joined, scale=adapt.scale, dropout=adapt.dropout)
    merge = jax.jit(functools.partial(lora.merged, scale=adapt.scale))
    return unflatten_dict(parts), Tuning(frozen, join, merge, penalty, around)


def finish(adapt: AdaptConfig, trained: Params) -> Params:
    """Returns what a run trained as it is kept: of AdaLoRA exactly the budget's triplets."""
    return adalora.finished(trained, budget_of(adapt, trained)) if adapt.method == "adalora" else trained


def budget_of(adapt: AdaptConfig, trained: Params) -> adalora.Budget:
    """Returns AdaLoRA's budget: `initial_rank` and `rank` triplets a weight."""
    first = sum(leaf.size for at, leaf in flatten_dict(trained).items() if at[-1] == lora.E)
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
    found = {at: leaf for at, leaf in flatten_dict(params).items() if at[-1] == "bias"}
    if not found:
        raise UserError(f"adapt.method='biases': a {config.family} has none; take lora")
    return unflatten_dict(found)


def _last_layer(adapt: AdaptConfig, config: ModelConfig, params: Params, key: jax.Array) -> Params:
    name, parts = config.layer.names.layer, list(params)
    if name in parts:
        raise UserError("adapt.method='last-layer' needs layers apart: model.scan_layers=False")
    after = [part for part in parts if part in (*family_of(config).optional, "ln_f", "norm")]
    return {part: params[part] for part in (f"{name}_{config.layers - 1}", *after)}


def _all(adapt: AdaptConfig, config: ModelConfig, params: Params, key: jax.Array) -> Params:
    return params


METHODS: dict[str, Callable[[AdaptConfig, ModelConfig, Params, jax.Array], Params]] = {
    "full": _all,
    "last-layer": _last_layer,
    "biases": _biases,
    "lora": _lora,
    "adalora": _adalora,
    "adapters": _adapters,
}
