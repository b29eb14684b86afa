"""What a run learns: a task is its loss, its batches and its evaluation; a phase is a task for so many steps."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from llmjax.models.params import Params
from llmjax.train.optimizer import Around, OptimizerConfig

LossFn = Callable[[Params, Any, jax.Array], tuple[jax.Array, jax.Array]]
"""(params, batch, key) -> (loss, accuracy), both scalars in float32; the batch is of the kind that the loss reads."""


class Work(NamedTuple):
    """What one batch is: real tokens, and the FLOPs that one training step on it needs."""

    tokens: int
    flops: float


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found.

    value: the higher the better; chooses the best parameters.
    figures: for the metrics; what is no number goes to metrics.jsonl only.
    brief: the figure that progress shows from then on, such as "dev 0.912".
    text: one or more lines for people.
    """

    value: float
    figures: Mapping[str, Any]
    brief: str
    text: str


@dataclass(frozen=True)
class Task:
    """What the training loop knows of a task: pure functions, and words for people.

    name: of its steps in the metrics.
    loss: traced into the compiled step.
    batches: k -> batches from number k on, for ever. Batch k depends on k only, so that a run resumes exactly.
    epoch_steps: batches of one pass over the data.
    work: of a batch.
    where: where to look when a batch's loss is not finite.
    evaluate: of parameters; None: there is nothing to evaluate on, and the last parameters are the best.
    about: said when the task begins.
    """

    name: str
    loss: LossFn
    batches: Callable[[int], Iterator[Any]]
    epoch_steps: int
    work: Callable[[Any], Work]
    where: Callable[[Any], str]
    evaluate: Callable[[Params], Evaluated] | None = None
    about: str = ""


@dataclass(frozen=True)
class Tuning:
    """How a run trains a part of a model: the parameters that it trains are those of that part alone.

    frozen: the rest, which a step reads and never writes; a checkpoint does not hold it.
    join: (frozen, trained, key) -> the parameters that a task's loss takes; the key is of what is dropped.
    merge: (frozen, trained) -> those that an evaluation takes.
    penalty: trained -> what is added to the loss; None: nothing.
    around: (optimizer, updates in all) -> the optimizer that takes its place.
    work: FLOPs of a step over those of a step that trains everything.
    """

    frozen: Params
    join: Callable[[Params, Params, jax.Array], Params]
    merge: Callable[[Params, Params], Params]
    penalty: Callable[[Params], jax.Array] | None = None
    around: Around | None = None
    work: float = 1.0


@dataclass(frozen=True)
class Phase:
    """Consecutive steps of one task.

    ema_decay: of the parameters' moving average, which is then what is evaluated and saved; 0 = off.
    save_every: steps between evaluations, each followed by a checkpoint; 0 = once an epoch.
    """

    task: Task
    steps: int
    optimizer: OptimizerConfig
    ema_decay: float = 0.0
    save_every: int = 0
