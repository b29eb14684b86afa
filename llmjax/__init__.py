"""llmjax: where every clock cycle of a language model goes, on any chip."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmjax.analyser import analyze, analyze_hlo
    from llmjax.data.tokenizer import load_tokenizer
    from llmjax.infer.classify import load_classifier
    from llmjax.models.config import ModelConfig
    from llmjax.models.gpt2_model import GPT2
    from llmjax.models.weights import load_pretrained, save_pretrained

__all__ = [
    "GPT2",
    "ModelConfig",
    "analyze",
    "analyze_hlo",
    "load_classifier",
    "load_pretrained",
    "load_tokenizer",
    "save_pretrained",
]

# Imported on first use: `import llmjax` stays light, and the analyser works where JAX is not installed.
_HOMES = {
    "GPT2": "llmjax.models.gpt2_model",
    "ModelConfig": "llmjax.models.config",
    "analyze": "llmjax.analyser",
    "analyze_hlo": "llmjax.analyser",
    "load_classifier": "llmjax.infer.classify",
    "load_pretrained": "llmjax.models.weights",
    "load_tokenizer": "llmjax.data.tokenizer",
    "save_pretrained": "llmjax.models.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
