"""A trained classifier and labelled texts -> its figures, as a table and as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments._mesh import on_devices
from experiments._settings import settled
from experiments.classify import load
from llmjax.data import DataConfig, load_dataset
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.parallel.processes import own
from llmjax.train.metrics import evaluate_logits, table, to_json


def run(config: Any, workdir: str) -> None:
    """Classifies every text of the configured file and writes `workdir`/eval.json."""
    config = settled(config)
    if not config.input:
        raise UserError("no labelled texts were named: pass --config.input=FILE (with source 'hub:...': a split).")
    with on_devices(config.mesh.to_dict()):
        _evaluate(config, workdir)


def _evaluate(config: Any, workdir: str) -> None:
    classes = tuple(name for name in config.classes if name)
    classifier = _zero_shot(config, classes) if classes else load(config.checkpoint, config.tokenizer, config.dtype)
    dataset = load_dataset(
        DataConfig(
            source=config.source,
            train=config.input,
            text_column=config.text_column,
            label_column=config.label_column,
            label_names=classifier.label_names,
            dev_fraction=0.0,
            test_fraction=0.0,
        )
    )
    for note in dataset.notes:
        print(note)
    predictions = classifier.classify(dataset.train.texts)
    probs_NC = np.array([list(prediction.scores.values()) for prediction in predictions])
    log_probs_NC = np.log(np.maximum(probs_NC, np.finfo(np.float32).tiny))
    found = evaluate_logits(log_probs_NC, dataset.train.labels_N, classifier.label_names)
    temperature = classifier.calibration.temperature
    before = evaluate_logits(log_probs_NC * temperature, dataset.train.labels_N, classifier.label_names)
    file = Path(workdir) / "eval.json"
    figures = {"checkpoint": str(config.checkpoint), "input": str(config.input), **to_json(found)}
    figures |= {"temperature": temperature, "calibration_error_at_temperature_1": before.calibration_error}
    atomic_write(own(file), json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    Console(highlight=False).print(table(found, f"{config.checkpoint} on {config.input}"))
    if temperature != 1.0:
        print(
            f"scores: temperature {temperature:.3f}, kept with the model; expected calibration error without it "
            f"{before.calibration_error:.4f}, with it {found.calibration_error:.4f}"
        )
    unknown = sum(not prediction.known for prediction in predictions)
    if unknown:
        print(f"{unknown:,} texts have no token that the model was trained on")
    print(f"written to {file}")


def _zero_shot(config: Any, classes: tuple[str, ...]) -> Any:
    from llmjax.infer.generate import load_generator
    from llmjax.infer.zeroshot import zero_shot

    if not config.checkpoint:
        raise UserError(
            "no language model was named: pass --config.checkpoint=smollm2, a folder, a GGUF file or a hub id."
        )
    generator = load_generator(config.checkpoint, config.tokenizer, config.dtype, chat=True)
    return zero_shot(generator, config.question, classes)
