"""Every job that runs a model refuses from shapes what does not fit, in one line, and leaves nothing behind."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import _microscope
from llmjax import memory
from llmjax.errors import UserError

FREE = 2**10


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a kilobyte."""
    original = memory.available
    for module in list(sys.modules.values()):
        if getattr(module, "available", None) is original:
            monkeypatch.setattr(module, "available", lambda: FREE)


JOBS: list[tuple[str, str, dict[str, Any]]] = [
    ("classify", "", {"checkpoint": "random:tiny", "text": "a"}),
    ("embed", "", {"checkpoint": "random:tiny", "input": "{texts}"}),
    ("evaluate", "", {"checkpoint": "random:tiny", "input": "{labelled}"}),
    ("generate", "", {"checkpoint": "random:tiny", "prompt": "a"}),
    ("perplexity", "", {"checkpoint": "random:tiny", "input": "{texts}"}),
    ("finetune", "tiny", {}),
    ("lm", "tiny", {}),
    ("cost", "", {"model": "tiny", "length": 16, "measure": True}),
]


@pytest.mark.parametrize(("job", "variant", "settings"), JOBS, ids=[job for job, *_ in JOBS])
def test_what_does_not_fit_is_refused(job, variant, settings, tmp_path: Path, request, monkeypatch) -> None:
    texts, labelled = tmp_path / "texts.txt", tmp_path / "labelled.tsv"
    texts.write_text("a film of some length\n" * 3)
    labelled.write_text("text\tlabel\na good film\tpositive\na bad film\tnegative\n")
    config = importlib.import_module(f"configs.{job}").get_config(*[variant] * bool(variant))
    for name, value in settings.items():
        value = value.format(texts=texts, labelled=labelled) if isinstance(value, str) else value
        config[name] = value
    run = importlib.import_module(f"experiments.{job}").run
    request.getfixturevalue("scarce")
    with pytest.raises(UserError, match=r"not enough memory: .* needed, 0\.0 MiB free: ") as error:
        run(config, str(tmp_path / "run"))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("run/**/*.json*")) or job in ("finetune", "lm")  # their settings are written down


def test_the_microscope_refuses_before_it_compiles(scarce, tmp_path: Path) -> None:
    shape = {"model": "tiny", "phase": "decode", "batch": 1, "length": 16, "new_tokens": 1, "dtype": "float32"}
    with pytest.raises(UserError, match=r"not enough memory: .* arguments"):
        _microscope.answer({"shape": shape, "runs": 1, "clock": False}, tmp_path)
    assert not list(tmp_path.iterdir())
