"""The settings of every method by which a part of a model is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmjax.errors import UserError, did_you_mean

METHODS = ("full", "nonzeros", "last-layer", "biases", "lora", "adalora", "adapters")
ADAPTERS = ("lora", "adalora", "adapters")  # of which a folder holds what was trained alone


@dataclass(frozen=True)
class AdaptConfig:
    """How much of a model is trained.

    method: one of `METHODS`; "nonzeros" trains everything but the zeros of weights that were pruned.
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
