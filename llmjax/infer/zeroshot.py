"""Classes from a language model that was never trained on them: which class's name it finds the likeliest answer."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from llmjax.errors import UserError
from llmjax.infer.calibration import Calibration
from llmjax.infer.classify import Prediction
from llmjax.infer.generate import Generator
from llmjax.infer.memory import check_forward
from llmjax.infer.step import score
from llmjax.models.cache import empty_cache
from llmjax.models.config import ModelConfig
from llmjax.models.params import Params, cache_dtype
from llmjax.parallel.layout import place_rows
from llmjax.parallel.processes import fetched

ROWS = 8  # answers scored at a time
SHORTEST = 32
NOTHING = "N/A"  # the text of which a good question tells nothing


@dataclasses.dataclass(frozen=True, eq=False)
class ZeroShot:
    """A language model as a classifier.

    question: what it is asked, with "{text}" where the text goes.
    label_names: the classes, which are the answers too.
    calibration: none: nothing was fitted to labels.
    """

    generator: Generator
    question: str
    label_names: tuple[str, ...]
    calibration: Calibration = dataclasses.field(default_factory=Calibration)

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Returns one prediction a text, in order: the softmax over classes of their answers' log-likelihoods.

        From each is taken the answer's log-likelihood when the text is "N/A": some answers are likelier whatever was
        asked. A text too long for the context is cut at its end and marked `truncated`. Source: Zhao et al. 2021,
        "Calibrate Before Use"; Holtzman et al. 2021, "Surface Form Competition", equation 2.
        """
        rows = [self._rows(text) for text in (NOTHING, *texts)]
        scored = _answers(self.generator, [row for text_rows, _ in rows for row in text_rows])
        scores_NC = np.array(scored).reshape(len(rows), len(self.label_names))
        logits_NC = scores_NC[1:] - scores_NC[0]
        probs_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        probs_NC /= probs_NC.sum(axis=1, keepdims=True)
        return [self._prediction(text, p_C, cut) for text, p_C, (_, cut) in zip(texts, probs_NC, rows[1:], strict=True)]

    def _prediction(self, text: str, p_C: np.ndarray, cut: bool) -> Prediction:
        scores = dict(zip(self.label_names, p_C.tolist(), strict=True))
        return Prediction(text, self.label_names[int(p_C.argmax())], float(p_C.max()), scores, cut)

    def _rows(self, text: str) -> tuple[list[tuple[list[int], list[int]]], bool]:
        """Returns (prompt, answer) in tokens, a class each, and whether the text was cut to fit the context."""
        tokenizer, separator = self.generator.tokenizer, "" if self.generator.answers else " "
        answers = [_ids(tokenizer, separator + name) for name in self.label_names]
        most = max(map(len, answers))
        words, cut = _ids(tokenizer, text), False
        while True:
            prompt = self.generator.encode(self.question.replace("{text}", text), most, trim=True)
            over = len(prompt) + most - self.generator.config.context
            # `encode` trims to exactly the context, at the beginning, where the question may stand
            if over < 0 or not words:
                return [(prompt, answer) for answer in answers], cut
            words, cut = words[: max(0, len(words) // 2)], True
            text = tokenizer.decode(words)


def zero_shot(generator: Generator, question: str, label_names: Sequence[str]) -> ZeroShot:
    """Makes a classifier of a language model; `UserError` for fewer than two classes or a question without "{text}"."""
    names = tuple(label_names)
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise UserError(f"classes={','.join(names)}: name at least two different answers, e.g. negative,positive.")
    if "{text}" not in question:
        raise UserError(f"question={question!r} must hold {{text}}, where each text goes.")
    return ZeroShot(generator, question, names)


def _ids(tokenizer: object, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]  # pyright: ignore[reportCallIssue]


def _answers(generator: Generator, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """Returns the log-likelihood of each row's answer after its prompt, in batches of rows of like length."""
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda at: len(rows[at][0]))
    for start in range(0, len(order), ROWS):
        batch = order[start : start + ROWS]
        longest = max(len(rows[at][0]) + len(rows[at][1]) for at in batch)
        length = min(max(SHORTEST, 1 << (longest - 1).bit_length()), generator.config.context)
        check_forward(generator.config, ROWS, length)
        tokens_BL, lengths_B = np.zeros((ROWS, length), np.int32), np.ones(ROWS, np.int32)
        for row, at in enumerate(batch):
            ids = [*rows[at][0], *rows[at][1]]
            tokens_BL[row, : len(ids)], lengths_B[row] = ids, len(ids)
        scores_BL: Float[np.ndarray, "B L"] = fetched(
            _scores(generator.params, *place_rows((tokens_BL, lengths_B)), generator.config)
        ).astype(np.float64)
        for row, at in enumerate(batch):
            prompt, answer = rows[at]
            found[at] = float(scores_BL[row, len(prompt) : len(prompt) + len(answer)].sum())
    return found


@functools.partial(jax.jit, static_argnums=3)
def _scores(params: Params, tokens_BL: jax.Array, lengths_B: jax.Array, config: ModelConfig) -> jax.Array:
    cache = empty_cache(config, tokens_BL.shape[0], tokens_BL.shape[1], cache_dtype(params))
    return score(params, tokens_BL, lengths_B, cache, config=config)[0]
