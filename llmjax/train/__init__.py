"""Training: optimizer, pure step, loop, checkpoints, metrics."""

from llmjax.train.loop import Fitted, Stopped, fit, make_predict, predict_logits
from llmjax.train.metrics import Evaluation, evaluate_logits
from llmjax.train.optimizer import OptimizerConfig, make_optimizer
from llmjax.train.plan import Split, TrainConfig
from llmjax.train.step import TrainState, init_state, make_train_step

__all__ = [
    "Evaluation",
    "Fitted",
    "OptimizerConfig",
    "Split",
    "Stopped",
    "TrainConfig",
    "TrainState",
    "evaluate_logits",
    "fit",
    "init_state",
    "make_optimizer",
    "make_predict",
    "make_train_step",
    "predict_logits",
]
