"""What the jobs that train a model share where they train a part of it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from llmjax.adapt.adalora import ranks
from llmjax.adapt.config import ADAPTERS, AdaptConfig
from llmjax.adapt.folders import load_model, save_adapter
from llmjax.adapt.tuning import begin, finish
from llmjax.errors import UserError
from llmjax.memory import tree_bytes
from llmjax.models.config import ModelConfig
from llmjax.models.folders import adapter_base
from llmjax.models.layout import place_model, table_of
from llmjax.models.params import Head, Params, unstack_layers
from llmjax.models.weights import save_pretrained
from llmjax.parallel.layout import place
from llmjax.pretrained import PRETRAINED
from llmjax.train.lesson import Lesson, check_lesson, taught
from llmjax.train.task import Tuning

# What reads the folder best/ of a method; where none is said, transformers does.
_READERS = {
    "lora": "peft loads it on its base",
    "adalora": "peft loads it on its base",
    "adapters": "the jobs here read it",
}


def best_told(method: str) -> str:
    """Returns the folder best/ and what it is, for people."""
    return f"best/ (the adapter; {_READERS[method]})" if method in _READERS else "best/ (transformers loads it)"


class Part(NamedTuple):
    """What a run trains of a model: its settings, the parameters at first, and how the model's are made of them.

    base: the name of the base, as an adapter's folder is to give it.
    """

    config: AdaptConfig
    params: Params
    tuning: Tuning | None
    base: str

    @property
    def bytes(self) -> int | None:
        """Bytes of what is trained; None where everything is."""
        return None if self.tuning is None else tree_bytes(self.params)

    def whole(self, fitted: Params) -> Params:
        """Returns the model's parameters with what a run trained."""
        return fitted if self.tuning is None else self.tuning.merge(self.tuning.frozen, finish(self.config, fitted))

    def figures(self, fitted: Params) -> dict[str, Any]:
        """Returns what is to be kept of a run's part."""
        found: dict[str, Any] = {"method": self.config.method, "trained_parameters": _count(fitted)}
        if self.config.method == "adalora":
            found["ranks"] = ranks(finish(self.config, fitted))
        return found

    def save(
        self, folder: Path, model: ModelConfig, trained: tuple[Params, Params], head: Head, tokenizer: Any
    ) -> None:
        """Writes an adapter's folder, or a model's where what was trained is no adapter.

        trained: what was fitted, and the whole that it makes.
        """
        fitted, whole = trained
        if self.config.method not in ADAPTERS:
            save_pretrained(folder, model, whole, head, tokenizer)
            return
        part = unstack_layers(finish(self.config, fitted), model)
        save_adapter(folder, model, part, head, self.config, self.base, tokenizer)


def part_of(
    values: dict[str, Any], model: ModelConfig, params: Params, head: Head, seed: int, init: tuple[str, str]
) -> Part:
    """Returns what the settings of `adapt` train of a model.

    Args:
        init: the setting that names what training starts from, and the folder that it came to; "" for fresh weights.

    Raises:
        UserError: settings that do not fit one another, or the model.
    """
    config, (name, folder) = AdaptConfig(**values), init
    if config.method == "full":
        return Part(config, params, None, "")
    if not name:
        raise UserError(f"adapt.method={config.method!r} trains a part of a trained model: name one as model.init")
    if config.method in ADAPTERS and adapter_base(Path(folder)) is not None:
        raise UserError(
            f"model.init={name!r} is an adapter, and adapt.method={config.method!r} would make one of it: start from "
            "its base, or train everything with adapt.method=full"
        )
    key = jax.random.fold_in(jax.random.key(seed), 1)
    trained, tuning = begin(config, model, params, head, key)
    local = name not in PRETRAINED and Path(name).expanduser().exists()
    count, every = _count(trained), _count(params)
    print(f"training {count:,} parameters by {config.method}, beside {every:,} of the model: {count / every:.2%}")
    return Part(config, place(trained, table_of(model)), tuning, str(Path(folder).resolve()) if local else name)


def lesson_of(
    values: dict[str, Any], model: ModelConfig, part: Part, head: Head
) -> tuple[Lesson | None, Tuning | None]:
    """Returns what the settings of `teacher` have a run learn, and how it then trains its part.

    Raises:
        UserError: no such teacher, or one that the model cannot learn of.
    """
    folder, *rest = (values[name] for name in ("folder", "share", "temperature", "hidden"))
    if not folder:
        return None, part.tuning
    config, params = load_model(folder, head, scan_layers=model.scan_layers, dtype=model.dtype)
    return taught_by(config, place_model(params, config), model, part.tuning, *rest)


def taught_by(
    teacher: ModelConfig, params: Params, model: ModelConfig, tuning: Tuning | None, *settings: Any
) -> tuple[Lesson, Tuning]:
    """Returns what a run learns of a teacher, and how it then trains its part; `settings` are `Lesson`'s.

    Raises:
        UserError: the model cannot learn of it.
    """
    lesson = Lesson(teacher, *settings)
    check_lesson(lesson, model)
    return lesson, taught(tuning, params)


def _count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
