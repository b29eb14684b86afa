"""Distillation: a student learns the answers of a teacher of the same tokenizer, beside the labels.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network". Hidden states: Jiao et al. 2020, "TinyBERT",
equation 8, of the last ones alone. Shape letters: B batch, L length, C classes or words, D width.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.params import Head, Params
from llmjax.train.losses import weighted_mean
from llmjax.train.task import LossFn, Tuning

STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class Lesson:
    """What is learnt of a teacher.

    teacher: its config. share: weight of its answers in the loss; the labels have the rest. temperature: by which both
    sides' logits are divided. hidden: weight of the mean squared difference of the last hidden states.
    """

    teacher: ModelConfig
    share: float = 0.5
    temperature: float = 2.0
    hidden: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"teacher.share is {self.share}: it must be above 0, and 1 at most")
        if not self.temperature > 0:
            raise UserError(f"teacher.temperature is {self.temperature}: it must be above 0")
        if self.hidden < 0:
            raise UserError(f"teacher.hidden is {self.hidden}: it must be 0 (off) or more")


def check_lesson(lesson: Lesson, student: ModelConfig) -> None:
    """Raises `UserError` where a student cannot learn of its teacher."""
    teacher = lesson.teacher
    if teacher.vocab_size != student.vocab_size:
        raise UserError(
            f"teacher: has a vocabulary of {teacher.vocab_size}, and the student one of {student.vocab_size}: they "
            "must read the same tokens"
        )
    if teacher.label_names != student.label_names:
        raise UserError(
            f"teacher: knows the classes {', '.join(teacher.label_names)}, and the data have "
            f"{', '.join(student.label_names)}"
        )
    if lesson.hidden and teacher.width != student.width:
        raise UserError(
            f"teacher.hidden compares states of the same width; the teacher's is {teacher.width}, the student's "
            f"{student.width}: set it to 0"
        )


def lesson_loss(student: ModelConfig, lesson: Lesson, head: Head) -> LossFn:
    """Returns the loss of {"student", "teacher"}: parameters of both; see `train.task.LossFn`.

    share * T^2 * cross-entropy of the softened answers + (1 - share) * that of the labels, means over what has a
    weight, and `hidden` times the difference of hidden states. The teacher drops nothing and gets no gradient.
    """
    models = {STUDENT: student, TEACHER: lesson.teacher}

    def applied(who: str, what: Head, params: Params, batch: Any, **more: Any) -> Any:
        mask = () if head == "lm" else (jnp.asarray(batch.mask_BL),)
        return make_model(models[who], what).apply({"params": params[who]}, jnp.asarray(batch.tokens_BL), *mask, **more)

    def loss_fn(params: Params, batch: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        drops = {"deterministic": False, "rngs": {"dropout": key}}
        ours, theirs = applied(STUDENT, head, params, batch, **drops), applied(TEACHER, head, params, batch)
        labels, weights = (batch.targets_BL, batch.weights_BL) if head == "lm" else (batch.labels_B, batch.weights_B)
        soft = softened(ours, jax.lax.stop_gradient(theirs), lesson.temperature)
        hard = optax.softmax_cross_entropy_with_integer_labels(ours, labels)
        correct = (jnp.argmax(ours, axis=-1) == labels).astype(jnp.float32)
        loss = weighted_mean(lesson.share * soft + (1.0 - lesson.share) * hard, weights)
        if lesson.hidden:
            mine_BLD, its_BLD = (
                applied(STUDENT, "none", params, batch, **drops),
                applied(TEACHER, "none", params, batch),
            )
            apart_BL = jnp.mean(jnp.square(mine_BLD - jax.lax.stop_gradient(its_BLD)), axis=-1)
            real_BL = batch.weights_BL if head == "lm" else batch.mask_BL * batch.weights_B[:, None]
            loss += lesson.hidden * weighted_mean(apart_BL, real_BL)
        return loss, weighted_mean(correct, weights)

    return loss_fn


def softened(ours: Float[Array, "... C"], theirs: Float[Array, "... C"], temperature: float) -> Float[Array, "..."]:
    """Returns T^2 times the cross-entropy of logits against a teacher's, both divided by the temperature T.

    The factor keeps the gradient's size as T changes: Hinton et al. 2015, section 2.
    """
    targets = jax.nn.softmax(theirs / temperature)
    return temperature**2 * optax.softmax_cross_entropy(ours / temperature, targets)


def taught(tuning: Tuning | None, teacher: Params) -> Tuning:
    """Returns how a run trains what `tuning` does (None: everything), with a teacher's parameters beside."""
    own = Tuning({}, lambda _, trained, key: trained, lambda _, trained: trained) if tuning is None else tuning

    def join(frozen: Params, trained: Params, key: jax.Array) -> Params:
        return {STUDENT: own.join(frozen[STUDENT], trained, key), TEACHER: frozen[TEACHER]}

    def merge(frozen: Params, trained: Params) -> Params:
        return own.merge(frozen[STUDENT], trained)

    return Tuning({STUDENT: own.frozen, TEACHER: teacher}, join, merge, own.penalty, own.around, own.work)
