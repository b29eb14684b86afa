from itertools import islice, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.data.tokenizer import Encoded
from llmjax.models.params import init_params
from llmjax.train import teacher as teachers
from llmjax.train.distillation import distillation_loss
from llmjax.train.teacher import DAMPING, FOLDS, LENGTH, TURN, Teacher, fit_teacher, taught_batches
from tests.train.toy import MODEL, make_split


def encoded(rows: list[list[int]]) -> Encoded:
    offsets_M = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Encoded(np.concatenate(rows).astype(np.int32), offsets_M, 0, 0)


KEYS = np.array([1, 2, 4, 5 + 5 + 2, 5 + 5 * 2 + 1, 5 + 5 * 4 + 4])  # tokens 1, 2, 4; pairs (1, 2), (2, 1), (4, 4)
WEIGHTS = np.array([[1.0], [-2.0], [0.5], [3.0], [-1.5], [0.25]]) * [[-1.0, 1.0]]
KNOWN = {(1,): 1.0, (2,): -2.0, (4,): 0.5, (1, 2): 3.0, (2, 1): -1.5, (4, 4): 0.25}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_teacher_scores_each_token_and_pair_of_a_prefix_once(tokens: list[int]) -> None:
    teacher = Teacher(5, (), KEYS, WEIGHTS.astype(np.float32), np.array([-0.5, 0.5], np.float32))
    probs_LC = teacher(np.array([tokens], np.int32))[0]
    for end in range(1, len(tokens) + 1):
        prefix = tokens[:end]
        grams = {(token,) for token in prefix} | set(pairwise(prefix))
        logit = sum(KNOWN.get(gram, 0.0) for gram in grams) / end**DAMPING + 0.5
        np.testing.assert_allclose(probs_LC[end - 1], [1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], rtol=1e-5)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_what_stands_before_a_turning_token_fades(tokens: list[int]) -> None:
    teacher = Teacher(5, (0, 2), KEYS, WEIGHTS.astype(np.float32), np.array([-0.5, 0.5], np.float32))
    score, seen = 0.0, set()
    for place, token in enumerate(tokens):
        if token in (0, 2):
            score *= TURN
        for gram in ((token,), tuple(tokens[place - 1 : place + 1]) if place else ()):
            score += KNOWN.get(gram, 0.0) if gram not in seen else 0.0
            seen.add(gram)
    logit = score / len(tokens) ** DAMPING + 0.5
    probs_C = teacher(np.array([tokens], np.int32))[0, -1]
    np.testing.assert_allclose(probs_C, [1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], rtol=1e-5)


@pytest.mark.parametrize("turns", [(), (0,), (0, 3)])
def test_fitting_and_answering_read_a_text_alike(turns: tuple[int, ...]) -> None:
    # Where a logistic regression's bias has no penalty, its mean answer to its own texts is their share of the class.
    rows = [[1, 0, 2], [2, 0, 1, 0, 4], [1, 3, 0, 2], [2, 4, 1], [1, 2, 3], [2, 1, 3, 1], [4], [3, 2]]
    labels_N = np.array([1, 0, 1, 0, 0, 1, 1, 0], np.int32)
    teacher = fit_teacher(encoded(rows), labels_N, 2, 5, turns)
    answers_N = [float(teacher(np.array([row], np.int32))[0, -1, 1]) for row in rows]
    np.testing.assert_allclose(np.mean(answers_N), np.mean(labels_N), atol=1e-4)


@pytest.mark.parametrize("few", [100, 10_000])
def test_the_bias_is_right_for_whole_texts_that_were_not_seen(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Labels are drawn: 3 of 10 whole texts are positive, 8 of 10 of their parts. Whole texts that were seen are known
    # by heart, so that only others show that the bias is that of the parts.
    monkeypatch.setattr(teachers, "FEW", few)
    random = np.random.default_rng(0)
    texts = [random.integers(1, 500, size=12).tolist() for _ in range(1200)]
    seen, new = texts[:800], texts[800:]
    rows = seen + [text[start : start + 3] for text in seen for start in (0, 4, 8)]
    labels_N = np.concatenate([random.random(800) < 0.3, random.random(2400) < 0.8]).astype(np.int32)
    teacher = fit_teacher(encoded(rows), labels_N, 2, 500)
    mean_answer = teacher(np.array(new, np.int32))[:, -1, 1].mean()
    if few > len(seen):
        assert mean_answer > 0.4
    else:
        np.testing.assert_allclose(mean_answer, labels_N[:800].mean(), atol=0.03)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=12))
def test_whole_texts_are_part_of_no_other_and_parts_have_their_folds(rows: list[list[int]]) -> None:
    def within(row: list[int], text: list[int]) -> bool:
        return any(text[start : start + len(row)] == row for start in range(len(text) - len(row) + 1))

    whole_N, parts_NF = teachers._deal_whole_texts(encoded(rows))
    for number, row in enumerate(rows):
        others = rows[:number] + [other for other in rows[number + 1 :] if other != row]
        assert whole_N[number] == (not any(within(row, other) for other in others))
    assert (parts_NF[whole_N].sum(axis=1) == 1).all()
    sizes_F = parts_NF[whole_N].sum(axis=0)
    assert sizes_F.max() - sizes_F.min() <= 1 and len(sizes_F) == FOLDS
    for row, parts_F in zip(rows, parts_NF, strict=True):
        holders_N = whole_N & np.array([within(row, text) for text in rows])
        np.testing.assert_array_equal(parts_F, parts_NF[holders_N].any(axis=0))


def test_teacher_learns_what_single_tokens_cannot_tell() -> None:
    rows = [[1, 2], [2, 1], [3, 1, 2], [4, 2, 1], [1, 2, 4], [2, 1, 3]] * 5
    labels_N = np.array([0, 1] * 15, np.int32)
    teacher = fit_teacher(encoded(rows), labels_N, 2, 5)
    probs_BLC = teacher(np.array([[3, 4, 1, 2], [3, 4, 2, 1]], np.int32))
    assert probs_BLC[:, -1].argmax(axis=-1).tolist() == [0, 1]
    np.testing.assert_allclose(probs_BLC.sum(axis=-1), 1.0, rtol=1e-6)


def test_teacher_of_three_classes() -> None:
    rows = [[1, 4], [2, 4], [3, 4], [1, 1], [2], [3, 0, 3]] * 4
    teacher = fit_teacher(encoded(rows), np.array([0, 1, 2] * 8, np.int32), 3, 5)
    assert teacher(np.array([[0, 1], [0, 2], [0, 3]], np.int32))[:, -1].argmax(axis=-1).tolist() == [0, 1, 2]


def test_two_classes_mirror_each_other() -> None:
    split = make_split(60, seed=3)
    teacher = fit_teacher(split.encoded, split.labels_N, 2, 50)
    flipped = fit_teacher(split.encoded, 1 - split.labels_N, 2, 50)
    tokens_BL = split.encoded[0][None, :]
    np.testing.assert_allclose(teacher(tokens_BL), flipped(tokens_BL)[..., ::-1], rtol=1e-3)


def test_batches_depend_on_their_number_only_and_hold_the_texts_tokens() -> None:
    split = make_split(40, seed=0)
    teacher = fit_teacher(split.encoded, split.labels_N, 2, 50)
    whole = list(islice(taught_batches(teacher, split.encoded, 8, 1024, seed=1), 4))
    later = next(taught_batches(teacher, split.encoded, 8, 1024, seed=1, start_step=3))
    jax.tree.map(np.testing.assert_array_equal, whole[3], later)
    assert not np.array_equal(whole[0].tokens_BL, whole[1].tokens_BL)
    assert whole[0].tokens_BL.shape == (8, LENGTH) and whole[0].targets_BLC.shape == (8, LENGTH, 2)
    of_texts = np.isin(np.stack([batch.tokens_BL for batch in whole]), split.encoded.tokens_T)
    assert 0.9 < of_texts.mean() < 1.0  # the others were put in: a share of them is new
    assert next(taught_batches(teacher, split.encoded, 2, 16, seed=1)).tokens_BL.shape == (2, 16)


@pytest.mark.parametrize("longest", [1, 2])
def test_texts_shorter_than_a_piece_still_make_batches(longest: int) -> None:
    split = make_split(10, seed=0, longest=2)
    short = encoded([list(split.encoded[i][:longest]) for i in range(10)])
    teacher = fit_teacher(short, split.labels_N, 2, 50)
    assert next(taught_batches(teacher, short, 4, 16, seed=0)).tokens_BL.shape == (4, 16)


def test_loss_without_a_head_is_that_of_even_odds() -> None:
    params = init_params(MODEL, "classifier", jax.random.key(0))
    params = params | {"score": {"kernel": jnp.zeros_like(params["score"]["kernel"])}}
    split = make_split(20, seed=0)
    batch = next(taught_batches(fit_teacher(split.encoded, split.labels_N, 2, 50), split.encoded, 4, 16, seed=0))
    loss, agreement = distillation_loss(MODEL)(params, batch, jax.random.key(1))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-5)
    np.testing.assert_allclose(agreement, np.mean(batch.targets_BLC.argmax(axis=-1) == 0), rtol=1e-6)
