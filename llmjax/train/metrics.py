"""How good a classifier's answers are: accuracy, F1, confusion, calibration, intervals. NumPy only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation; `confusion_CC[true][predicted]` counts examples."""

    examples: int
    loss: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    majority_accuracy: float
    macro_f1: float
    calibration_error: float
    confusion_CC: tuple[tuple[int, ...], ...]
    label_names: tuple[str, ...]


def evaluate_logits(
    logits_NC: Float[np.ndarray, "N C"], labels_N: Int[np.ndarray, "N"], label_names: tuple[str, ...], seed: int = 0
) -> Evaluation:
    """Returns every figure for `logits_NC` against `labels_N`; the interval is a 95% bootstrap one."""
    logits_NC = logits_NC.astype(np.float64)
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    log_probs_NC = shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))
    predicted_N = logits_NC.argmax(axis=1)
    correct_N = predicted_N == labels_N
    confusion_CC = confusion(predicted_N, labels_N, len(label_names))
    low, high = bootstrap_interval(correct_N, seed)
    return Evaluation(
        examples=len(labels_N),
        loss=float(-log_probs_NC[np.arange(len(labels_N)), labels_N].mean()),
        accuracy=float(correct_N.mean()),
        accuracy_low=low,
        accuracy_high=high,
        majority_accuracy=float(confusion_CC.sum(axis=1).max() / len(labels_N)),
        macro_f1=macro_f1(confusion_CC),
        calibration_error=calibration_error(np.exp(log_probs_NC.max(axis=1)), correct_N),
        confusion_CC=tuple(tuple(int(count) for count in row) for row in confusion_CC),
        label_names=tuple(label_names),
    )


def confusion(
    predicted_N: Int[np.ndarray, "N"], labels_N: Int[np.ndarray, "N"], classes: int
) -> Int[np.ndarray, "C C"]:
    """Returns counts [true class, predicted class]."""
    return np.bincount(labels_N * classes + predicted_N, minlength=classes * classes).reshape(classes, classes)


def macro_f1(confusion_CC: Int[np.ndarray, "C C"]) -> float:
    """Returns the mean over classes of F1 = 2 TP / (2 TP + FP + FN); a class neither true nor predicted counts as 0."""
    hits_C = np.diag(confusion_CC)
    sizes_C = confusion_CC.sum(axis=0) + confusion_CC.sum(axis=1)
    return float(np.mean(2 * hits_C / np.maximum(sizes_C, 1)))


def calibration_error(confidence_N: Float[np.ndarray, "N"], correct_N: np.ndarray, bins: int = 15) -> float:
    """Returns the expected calibration error: the mean, over examples, of |accuracy - confidence| of their bin.

    `bins` bins of equal width over (0, 1], as in Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_N, correct_N.astype(float) - confidence_N, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence_N))


def bootstrap_interval(correct_N: np.ndarray, seed: int, resamples: int = 1000) -> tuple[float, float]:
    """Returns the 2.5% and 97.5% percentiles of accuracy over `resamples` resamplings of the examples.

    Resampling N zeros and ones with replacement draws a binomial count of ones, so that is drawn directly.
    """
    means = np.random.default_rng(seed).binomial(len(correct_N), correct_N.mean(), resamples) / len(correct_N)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the evaluation as an object for a JSON file."""
    return {
        "examples": evaluation.examples,
        "loss": evaluation.loss,
        "accuracy": evaluation.accuracy,
        "accuracy_95": [evaluation.accuracy_low, evaluation.accuracy_high],
        "majority_accuracy": evaluation.majority_accuracy,
        "macro_f1": evaluation.macro_f1,
        "expected_calibration_error": evaluation.calibration_error,
        "confusion": [list(row) for row in evaluation.confusion_CC],
        "label_names": list(evaluation.label_names),
    }


def from_json(value: dict[str, Any]) -> Evaluation:
    """Reads what `to_json` wrote."""
    return Evaluation(
        examples=value["examples"],
        loss=value["loss"],
        accuracy=value["accuracy"],
        accuracy_low=value["accuracy_95"][0],
        accuracy_high=value["accuracy_95"][1],
        majority_accuracy=value["majority_accuracy"],
        macro_f1=value["macro_f1"],
        calibration_error=value["expected_calibration_error"],
        confusion_CC=tuple(tuple(row) for row in value["confusion"]),
        label_names=tuple(value["label_names"]),
    )


def table(evaluation: Evaluation, title: str) -> Any:
    """Returns the figures as a rich table, the confusion counts below them."""
    from rich.table import Table

    result = Table(title=title, title_justify="left", show_header=False)
    accuracy = (
        f"{evaluation.accuracy:.4f}  (95% interval {evaluation.accuracy_low:.4f} to {evaluation.accuracy_high:.4f})"
    )
    rows = {
        "examples": f"{evaluation.examples:,}",
        "accuracy": accuracy,
        "always the commonest class": f"{evaluation.majority_accuracy:.4f}",
        "macro F1": f"{evaluation.macro_f1:.4f}",
        "expected calibration error": f"{evaluation.calibration_error:.4f}",
        "cross-entropy": f"{evaluation.loss:.4f}",
    }
    for name, counts in zip(evaluation.label_names, evaluation.confusion_CC, strict=True):
        answers = ", ".join(f"{count:,} {answer}" for answer, count in zip(evaluation.label_names, counts, strict=True))
        rows[f"true {name}, answered"] = answers
    for name, value in rows.items():
        result.add_row(name, value)
    return result
