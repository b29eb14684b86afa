"""Training: optimizer, pure step, tasks, one loop for all of them, checkpoints, metrics."""

from llmjax.train.classification import Split, make_predict, predict_logits
from llmjax.train.classifier import TrainConfig, fit_classifier
from llmjax.train.distillation import DistillConfig
from llmjax.train.loop import Fitted, LoopConfig, Stopped, fit
from llmjax.train.metrics import Evaluation, evaluate_logits
from llmjax.train.optimizer import OptimizerConfig, make_optimizer
from llmjax.train.step import TrainState, init_state, make_train_step
from llmjax.train.task import Evaluated, Phase, Task, Work

__all__ = [
    "DistillConfig",
    "Evaluated",
    "Evaluation",
    "Fitted",
    "LoopConfig",
    "OptimizerConfig",
    "Phase",
    "Split",
    "Stopped",
    "Task",
    "TrainConfig",
    "TrainState",
    "Work",
    "evaluate_logits",
    "fit",
    "fit_classifier",
    "init_state",
    "make_optimizer",
    "make_predict",
    "make_train_step",
    "predict_logits",
]
