"""What a trained classifier's figures are, beside those of a linear one: for JSON, and printed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console

from llmjax.infer.calibration import FEW
from llmjax.train import Split, evaluate_logits
from llmjax.train.metrics import from_json, table, to_json
from llmjax.train.teacher import fit_teacher

MOST_TEXTS = 100_000  # that the linear baseline is fitted to: enough for it, and some seconds


def measured_json(
    logits: Mapping[str, np.ndarray], splits: Mapping[str, Split], temperature: float, names: tuple[str, ...]
) -> dict[str, Any]:
    """Returns the figures of each split at `temperature`, and what the calibration's error was without it."""
    found: dict[str, Any] = {}
    for name, logits_NC in logits.items():
        found[name] = to_json(evaluate_logits(logits_NC / temperature, splits[name].labels_N, names))
        before = evaluate_logits(logits_NC, splits[name].labels_N, names)
        found[name]["calibration_error_at_temperature_1"] = before.calibration_error
    return found


def baseline_json(
    train: Split, measured: Mapping[str, Split], names: tuple[str, ...], vocabulary: int
) -> dict[str, Any]:
    """Returns what a linear classifier of tokens and pairs of tokens, fitted to the same texts, gets on each split."""
    encoded, labels_N = train.encoded.head(MOST_TEXTS), train.labels_N[:MOST_TEXTS]
    if not measured or len(np.unique(labels_N)) < 2:
        return {}
    teacher = fit_teacher(encoded, labels_N, len(names), vocabulary)
    found = {}
    for name, split in measured.items():
        logits_NC = np.log(np.maximum(teacher.answers(split.encoded), np.finfo(np.float32).tiny))
        figures = evaluate_logits(logits_NC, split.labels_N, names)
        found[name] = {"accuracy": figures.accuracy, "macro_f1": figures.macro_f1}
    return found


def examples_json(
    texts: list[str], labels: list[str], logits_NC: np.ndarray, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Returns each text with its answer and the answer's probability; `labels` are the true ones, or ""."""
    odds_NC = np.exp(logits_NC - logits_NC.max(axis=-1, keepdims=True))
    probs_NC = odds_NC / odds_NC.sum(axis=-1, keepdims=True)
    return [
        {
            "text": text,
            "label": names[int(probs_C.argmax())],
            "score": round(float(probs_C.max()), 6),
            "labelled": label,
        }
        for text, label, probs_C in zip(texts, labels, probs_NC, strict=True)
    ]


def print_figures(results: Mapping[str, Any]) -> None:
    """Prints the results of a training run: a table a split, the baseline, the calibration and the examples."""
    console = Console(highlight=False)
    measured = [name for name in ("test", "dev") if name in results]
    for name in measured:
        console.print(table(from_json(results[name]), f"{name} (parameters of step {results['best_step']})"))
    for name in measured[:1]:
        figures, linear = results[name], results.get("baseline", {}).get(name)
        low, high = figures["accuracy_95"]
        print(
            f"{name} accuracy {figures['accuracy']:.4f} (95% interval {low:.4f} to {high:.4f}), macro F1 "
            f"{figures['macro_f1']:.4f}; always answering the commonest class: {figures['majority_accuracy']:.4f}"
        )
        if linear:
            print(
                f"a linear classifier of the same tokens and pairs of them: accuracy {linear['accuracy']:.4f}, "
                f"macro F1 {linear['macro_f1']:.4f}"
            )
        if results.get("temperature", 1.0) != 1.0:
            own = " (on which it was fitted)" if name == "dev" else ""
            print(
                f"scores: temperature {results['temperature']:.3f}, fitted on dev; expected calibration error on "
                f"{name}{own}: {figures['calibration_error_at_temperature_1']:.4f} before, "
                f"{figures['expected_calibration_error']:.4f} after"
            )
        else:
            print(f"scores: as they come; a temperature takes {FEW} dev texts or more")
    for example in results["examples"]:
        label = f", labelled {example['labelled']}" if example.get("labelled") else ""
        print(f"  {_short(example['text'])!r} -> {example['label']} ({example['score']:.3f}){label}")


def _short(text: str, length: int = 90) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
