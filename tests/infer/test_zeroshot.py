import jax
import numpy as np
import pytest

from llmjax.data.tokenizer import load_tokenizer
from llmjax.errors import UserError
from llmjax.infer.generate import Generator
from llmjax.infer.zeroshot import NOTHING, zero_shot
from llmjax.models.families import from_size
from llmjax.models.params import init_params
from tests.infer.models import full_logits

QUESTION = "Review: {text} Was it good?"


@pytest.fixture(scope="module")
def classifier():
    tokenizer = load_tokenizer("gpt2")
    config = from_size("tiny", vocab_size=len(tokenizer))
    params = init_params(config, "lm", jax.random.key(1))
    made = zero_shot(Generator.from_params(config, params, tokenizer), QUESTION, ("yes", "not at all"))
    return made, config, params


def likelihood(config, params, tokenizer, text: str, answer: str) -> float:
    prompt = tokenizer(QUESTION.replace("{text}", text))["input_ids"]
    ids = prompt + tokenizer(" " + answer)["input_ids"]
    logits_LV = full_logits(config, params, ids).astype(np.float64)
    log_probs_LV = logits_LV - np.log(np.exp(logits_LV).sum(-1, keepdims=True))
    return sum(log_probs_LV[at - 1, ids[at]] for at in range(len(prompt), len(ids)))


def test_scores_are_the_answers_likelihoods_against_those_of_no_text(classifier):
    made, config, params = classifier
    texts = ["A film.", "Long and dull, and then dull and long again, for hours on end.", ""]
    tokenizer = made.generator.tokenizer
    for text, found in zip(texts, made.classify(texts), strict=True):
        logits = [
            likelihood(config, params, tokenizer, text, name) - likelihood(config, params, tokenizer, NOTHING, name)
            for name in made.label_names
        ]
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(list(found.scores.values()), expected, atol=2e-4)
        assert found.label == made.label_names[int(np.argmax(expected))] and not found.truncated


def test_a_text_too_long_for_the_context_is_cut_and_the_question_stays(classifier):
    made, config, _ = classifier
    (found,) = made.classify(["word " * (2 * config.context)])
    assert found.truncated
    rows, _ = made._rows("word " * (2 * config.context))
    assert len(rows[0][0]) + max(len(answer) for _, answer in rows) < config.context
    assert made.generator.tokenizer.decode(rows[0][0]).endswith("Was it good?")


@pytest.mark.parametrize(
    ("question", "names", "line"),
    [
        ("Good?", ("a", "b"), "must hold {text}"),
        (QUESTION, ("a",), "at least two"),
        (QUESTION, ("a", "a"), "different"),
    ],
)
def test_what_cannot_work_is_one_line(classifier, question, names, line):
    with pytest.raises(UserError, match=line):
        zero_shot(classifier[0].generator, question, names)
