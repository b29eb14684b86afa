"""A linear teacher for small data sets, and the made-up texts on which a model learns from it.

A linear classifier of tokens and pairs of neighbouring tokens generalises better from a few thousand sentences than a
transformer that starts from nothing. A transformer that learns its answers on texts without end comes close to it, and
is a GPT-2 like any other (distillation: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64
from scipy import sparse

from llmjax.data.batches import pad_batch
from llmjax.data.tokenizer import Encoded

PENALTY = 1.0  # of the squared weights
DAMPING = 0.25  # occurrences are divided by this power of the text's length: labels are of phrases, texts are longer
TURN = 0.5  # what stands before a turning token counts for this much
LENGTH = 40  # tokens of a made-up text at least: each of its prefixes is a text to learn from
FIT = 0.98  # share of the texts that are no longer than a made-up one: every place is learnt that most texts reach
SHUFFLED = 0.3  # share of made-up texts in random order: most pairs in them are new, and say nothing
REPLACED = 0.05  # share of their tokens that any other may stand for: what no text has must mean nothing
SHORTEST = 3  # tokens of a piece
FOLDS = 5  # of whole texts: a teacher that has not seen them tells how far its bias is off
_ROWS, _ELEMENTS = 256, 1 << 24  # texts answered at a time, and pairs of places that are compared for it
FEW = 100  # whole texts, with fewer of which the bias stays as it was fitted


class TaughtBatch(NamedTuple):
    """Made-up texts without padding, with the teacher's probabilities of every prefix; rows count from 0."""

    tokens_BL: Int32[np.ndarray, "B L"]
    mask_BL: Bool[np.ndarray, "B L"]
    targets_BLC: Float32[np.ndarray, "B L C"]
    rows_B: Int32[np.ndarray, "B"]


@dataclass(frozen=True)
class Teacher:
    """Weights of tokens (key = token) and of pairs (key = (first + 1) x vocabulary + second), keys ascending.

    turns: tokens after which a text says what it means, as "but" in "A but B" (Hu et al. 2016, "Harnessing Deep Neural
        Networks with Logic Rules", who take B for the whole): what stands before them counts for `TURN`.
    """

    vocabulary: int
    turns: tuple[int, ...]
    keys_K: Int64[np.ndarray, "K"]
    weights_KC: Float32[np.ndarray, "K C"]
    bias_C: Float32[np.ndarray, "C"]

    def __call__(self, tokens_BL: Int32[np.ndarray, "B L"]) -> Float32[np.ndarray, "B L C"]:
        """Returns the probability of each class for every prefix of every text."""
        tokens_BL = tokens_BL.astype(np.int64)
        pairs_BL = np.full_like(tokens_BL, -1)
        pairs_BL[:, 1:] = _pair(tokens_BL[:, :-1], tokens_BL[:, 1:], self.vocabulary)
        scores_BLC = self._new_weights(tokens_BL) + self._new_weights(pairs_BL)
        lengths_L = np.arange(1, tokens_BL.shape[1] + 1, dtype=np.float32)
        fade_BL1 = np.float32(TURN) ** np.cumsum(np.isin(tokens_BL, self.turns), axis=1)[..., None]
        sums_BLC = np.cumsum(scores_BLC / fade_BL1, axis=1) * fade_BL1
        logits_BLC = sums_BLC / lengths_L[:, None] ** DAMPING + self.bias_C
        odds_BLC = 1.0 / (1.0 + np.exp(-logits_BLC))
        return (odds_BLC / odds_BLC.sum(axis=-1, keepdims=True)).astype(np.float32)

    def answers(self, encoded: Encoded) -> Float32[np.ndarray, "N C"]:
        """Returns the probability of each class for every text."""
        order_N = np.argsort(encoded.lengths_N, kind="stable")
        found_NC = np.empty((len(encoded), len(self.bias_C)), np.float32)
        while len(order_N):
            longest = int(encoded.lengths_N[order_N[:_ROWS]].max())
            rows = order_N[: max(1, min(_ROWS, _ELEMENTS // longest**2))]
            order_N = order_N[len(rows) :]
            tokens_BL, _ = pad_batch([encoded[int(row)] for row in rows], longest, len(rows), encoded.pad_id)
            found_NC[rows] = self(tokens_BL)[np.arange(len(rows)), encoded.lengths_N[rows] - 1]
        return found_NC

    def _new_weights(self, keys_BL: Int64[np.ndarray, "B L"]) -> Float32[np.ndarray, "B L C"]:
        """Returns the weights of keys where they stand for the first time in their text, else 0."""
        place_BL = np.minimum(np.searchsorted(self.keys_K, keys_BL), len(self.keys_K) - 1)
        earlier_LL = np.tri(keys_BL.shape[1], k=-1, dtype=bool)
        again_BL = ((keys_BL[:, :, None] == keys_BL[:, None, :]) & earlier_LL).any(axis=-1)
        known_BL = (self.keys_K[place_BL] == keys_BL) & ~again_BL
        return np.where(known_BL[..., None], self.weights_KC[place_BL], np.float32(0.0))


def fit_teacher(
    encoded: Encoded, labels_N: Int32[np.ndarray, "N"], classes: int, vocabulary: int, turns: tuple[int, ...] = ()
) -> Teacher:
    """Returns the teacher that the labelled texts make.

    For each class against the others: logistic regression with an L2 penalty on whether a token or pair occurs, times
    the square root of the naive-Bayes log-count ratio of the class with its sign (Wang & Manning 2012, "Baselines and
    Bigrams", take the ratio itself; its root is half-way from there to none). Occurrences fade before turning tokens
    and are divided by a power of the text's length, as in the teacher's answers. Last, the bias is set right for whole
    texts that the teacher has not seen (`_held_out_shift`): phrases and texts known by heart have fitted it.
    """
    tokens_T, lengths_N = encoded.tokens_T.astype(np.int64), encoded.lengths_N
    rows_T = np.repeat(np.arange(len(encoded)), lengths_N)
    inside_P = rows_T[1:] == rows_T[:-1]
    pairs_P = _pair(tokens_T[:-1], tokens_T[1:], vocabulary)[inside_P]
    keys_K, places_E = np.unique(np.concatenate([tokens_T, pairs_P]), return_inverse=True)
    rows_E = np.concatenate([rows_T, rows_T[1:][inside_P]])
    turned_T = np.cumsum(np.isin(tokens_T, turns))
    later_T = np.repeat(turned_T[np.cumsum(lengths_N) - 1], lengths_N) - turned_T
    later_E = np.concatenate([later_T, later_T[1:][inside_P]])
    found_F, first_F = np.unique(rows_E * len(keys_K) + places_E, return_index=True)
    at_F, shape = np.divmod(found_F, len(keys_K)), (len(encoded), len(keys_K))
    occurs_NK: Any = sparse.csr_matrix((np.ones(len(found_F)), at_F), shape)
    faded_NK: Any = sparse.csr_matrix((TURN ** later_E[first_F], at_F), shape)
    shares_NK: Any = sparse.diags(lengths_N**-DAMPING) @ faded_NK
    whole_N, parts_NF = _deal_whole_texts(encoded)
    weights, biases = [], []
    for chosen in range(classes):
        if classes == 2 and chosen == 1:  # the mirror image of class 0
            weights.append(-weights[0])
            biases.append(-biases[0])
            break
        is_N = (labels_N == chosen).astype(np.float64)
        weight_K, bias = _one_against_others(occurs_NK, shares_NK, is_N)
        weights.append(weight_K)
        biases.append(bias + _held_out_shift(occurs_NK, shares_NK, is_N, whole_N, parts_NF))
    return Teacher(
        vocabulary, turns, keys_K, np.stack(weights, axis=-1).astype(np.float32), np.array(biases, np.float32)
    )


def _one_against_others(occurs_NK: Any, shares_NK: Any, is_N: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns weights and bias of the class that `is_N` marks; the matrices are sparse."""
    ours_K, others_K = occurs_NK.T @ is_N + 1.0, occurs_NK.T @ (1.0 - is_N) + 1.0
    log_ratio_K = np.log(ours_K / ours_K.sum()) - np.log(others_K / others_K.sum())
    ratio_K = np.sign(log_ratio_K) * np.sqrt(np.abs(log_ratio_K))
    weight_K, bias = _logistic(shares_NK @ sparse.diags(ratio_K), is_N)
    return weight_K * ratio_K, bias


def _held_out_shift(
    occurs_NK: Any, shares_NK: Any, is_N: np.ndarray, whole_N: np.ndarray, parts_NF: np.ndarray
) -> float:
    """Returns what added to the logits of whole texts, each from a fit without its fold, makes cross-entropy least."""
    if np.count_nonzero(whole_N) < FEW:
        return 0.0
    # Slow to import: every job that trains comes by this module, few have a teacher.
    from scipy.optimize import minimize_scalar

    logits_N = np.zeros(len(is_N))
    for fold in range(FOLDS):
        rest_N = np.delete(parts_NF, fold, axis=1).any(axis=1)
        weight_K, bias = _one_against_others(occurs_NK[rest_N], shares_NK[rest_N], is_N[rest_N])
        held_N = whole_N & parts_NF[:, fold]
        logits_N[held_N] = shares_NK[held_N] @ weight_K + bias
    z_W, y_W = logits_N[whole_N], is_N[whole_N]
    found: Any = minimize_scalar(
        lambda shift: np.mean(np.logaddexp(0.0, z_W + shift) - y_W * (z_W + shift)), bounds=(-5, 5), method="bounded"
    )
    return float(found.x)


def _deal_whole_texts(encoded: Encoded) -> tuple[Bool[np.ndarray, "N"], Bool[np.ndarray, "N F"]]:
    """Returns which texts are part of no other, dealt to the folds in turn, and the folds of the texts each is part of.

    Of equal texts the first is the whole one.
    """
    texts = [encoded[row].tobytes() for row in range(len(encoded))]
    rows_of: dict[bytes, list[int]] = {}
    sizes_of: dict[bytes, set[int]] = {}  # of the texts that begin so
    step, beginning = encoded.tokens_T.itemsize, 5  # tokens: few texts begin with the same five
    for row, text in enumerate(texts):
        rows_of.setdefault(text, []).append(row)
        sizes_of.setdefault(text[: beginning * step], set()).add(len(text))
    whole_N = np.zeros(len(texts), bool)
    parts_NF = np.zeros((len(texts), FOLDS), bool)
    for row in np.argsort(-encoded.lengths_N, kind="stable"):
        if parts_NF[row].any():
            continue
        text, fold = texts[row], np.count_nonzero(whole_N) % FOLDS
        whole_N[row] = True
        for start in range(0, len(text), step):
            for tokens in range(1, beginning + 1):
                for size in sizes_of.get(text[start : start + tokens * step], ()):
                    parts_NF[rows_of.get(text[start : start + size], []), fold] = True
    return whole_N, parts_NF


def _pair(first: np.ndarray, second: np.ndarray, vocabulary: int) -> np.ndarray:
    return (first + 1) * vocabulary + second


def _logistic(x_NK: Any, y_N: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns weights and bias that make cross-entropy plus `PENALTY` / 2 x squared weights least; `x_NK` is sparse."""
    from scipy.optimize import minimize

    x_NK, x_KN = x_NK.tocsr(), x_NK.T.tocsr()

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w_K, bias = theta[:-1], theta[-1]
        z_N = x_NK @ w_K + bias
        error_N = np.exp(-np.logaddexp(0.0, -z_N)) - y_N
        value = np.sum(np.logaddexp(0.0, z_N) - y_N * z_N) + PENALTY / 2 * (w_K @ w_K)
        return float(value), np.append(x_KN @ error_N + PENALTY * w_K, error_N.sum())

    found: Any = minimize(loss, np.zeros(x_NK.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 60})
    return found.x[:-1], float(found.x[-1])


def taught_batches(
    teacher: Teacher, encoded: Encoded, batch_size: int, longest: int, seed: int, start_step: int = 0
) -> Iterator[TaughtBatch]:
    """Yields batches of made-up texts for ever; batch k depends on the texts, `seed`, k and NumPy's version only.

    A made-up text strings pieces of texts together: whole texts, or parts of them, with some tokens replaced. Single
    tokens give no piece where longer texts are there.
    """
    fitting = int(np.quantile(encoded.lengths_N, FIT, method="higher"))
    length = min(max(LENGTH, -(-fitting // 8) * 8), longest)
    long_enough = np.flatnonzero(encoded.lengths_N >= min(SHORTEST, encoded.lengths_N.max()))
    step = start_step
    while True:
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step])))
        tokens_BL = np.stack([_made_up(encoded, long_enough, length, random) for _ in range(batch_size)])
        any_BL = random.integers(teacher.vocabulary, size=tokens_BL.shape, dtype=np.int32)
        tokens_BL = np.where(random.random(tokens_BL.shape) < REPLACED, any_BL, tokens_BL)
        rows_B = np.arange(batch_size, dtype=np.int32)
        yield TaughtBatch(tokens_BL, np.ones_like(tokens_BL, bool), teacher(tokens_BL), rows_B)
        step += 1


def _made_up(encoded: Encoded, rows: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    pieces, have = [], 0
    while have < length:
        piece = encoded[int(rows[random.integers(len(rows))])]
        if random.random() < 0.5 and len(piece) > 2 * SHORTEST:
            start = random.integers(len(piece) - SHORTEST)
            piece = piece[start : start + random.integers(SHORTEST, len(piece) - start + 1)]
        pieces.append(piece)
        have += len(piece)
    tokens_L = np.concatenate(pieces)[:length]
    return random.permutation(tokens_L) if random.random() < SHUFFLED else tokens_L
