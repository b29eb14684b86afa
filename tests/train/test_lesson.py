import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.tuning import begin
from llmjax.errors import UserError
from llmjax.models.params import init_params
from llmjax.train.classification import classification_loss
from llmjax.train.lesson import STUDENT, TEACHER, Lesson, check_lesson, lesson_loss, softened, taught
from llmjax.train.optimizer import OptimizerConfig, make_optimizer
from llmjax.train.step import init_state, make_train_step
from tests.adapt.models import FAMILIES, batch, drawn, logits

TEACHER_CONFIG = FAMILIES["gpt2"]
SMALL: Any = dataclasses.replace(FAMILIES["gpt2"], n_layer=1)


def test_a_student_alone_with_its_labels_has_the_labels_loss() -> None:
    small = init_params(SMALL, "classifier", jax.random.key(1))
    both = {STUDENT: small, TEACHER: drawn("gpt2")}
    labels, accuracy = jax.jit(classification_loss(SMALL, 0.0, 0.0, 0))(small, batch(), jax.random.key(0))
    lesson = lesson_loss(SMALL, Lesson(TEACHER_CONFIG, share=1e-9), "classifier")
    loss, right = jax.jit(lesson)(both, batch(), jax.random.key(0))
    assert float(loss) == pytest.approx(float(labels), rel=1e-5) and right == accuracy


def test_softened_is_least_where_both_agree_and_its_gradient_keeps_its_size() -> None:
    theirs_C = jnp.array([2.0, -1.0, 0.5])
    same = softened(theirs_C, theirs_C, 3.0)
    for number in range(5):
        other_C = theirs_C + jax.random.normal(jax.random.key(number), (3,))
        assert softened(other_C, theirs_C, 3.0) > same
    ours_C = theirs_C + 0.1
    ours_C = ours_C.at[0].add(0.3)
    sizes = [jnp.linalg.norm(jax.grad(softened)(ours_C, theirs_C, t)) for t in (4.0, 8.0, 16.0)]
    assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_student_comes_to_answer_as_its_teacher(method: str) -> None:
    teacher, params = drawn("gpt2"), init_params(SMALL, "classifier", jax.random.key(3))
    teacher = jax.tree.map(lambda leaf: 4 * leaf, teacher)  # its answers should not all be alike
    lesson = Lesson(TEACHER_CONFIG, share=1.0, temperature=1.0, hidden=0.1)
    begun, own = begin(AdaptConfig(method, rank=8), SMALL, params, "classifier", jax.random.key(2))
    tuning = taught(own, teacher)
    settings = OptimizerConfig(learning_rate=2e-2)
    state = init_state(begun, make_optimizer(settings, 60), 0, False)
    step = jax.jit(make_train_step(lesson_loss(SMALL, lesson, "classifier"), settings, 60, tuning=tuning))

    def apart(trained: Any) -> float:
        whole = tuning.merge(tuning.frozen, trained)
        found = [logits(config, params) for config, params in ((SMALL, whole), (TEACHER_CONFIG, teacher))]
        return float(jnp.mean(optax.kl_divergence(jax.nn.log_softmax(found[0]), jax.nn.softmax(found[1]))))

    before = apart(begun)
    for _ in range(60):
        state, _ = step(state, batch(), tuning.frozen)
    assert apart(state.params) < 0.3 * before
    jax.tree.map(np.testing.assert_array_equal, tuning.frozen[TEACHER], teacher)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab_size": 60}, "has a vocabulary of 60, and the student one of 50"),
        ({"label_names": ("no", "yes")}, "knows the classes no, yes, and the data have LABEL_0, LABEL_1"),
        ({"n_embd": 32}, "teacher.hidden compares states of the same width; the teacher's is 32"),
    ],
)
def test_a_teacher_of_another_kind_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_lesson(Lesson(dataclasses.replace(TEACHER_CONFIG, **change), hidden=1.0), SMALL)


@pytest.mark.parametrize(("values", "says"), [({"share": 0.0}, "share is 0.0"), ({"temperature": 0.0}, "above 0")])
def test_settings_of_a_lesson_are_checked(values: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Lesson(TEACHER_CONFIG, **values)
