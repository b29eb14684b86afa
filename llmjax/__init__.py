"""llmjax: where every clock cycle of a language model goes, on any chip."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmjax.analyser import analyze, analyze_hlo
    from llmjax.data.tokenizer import load_tokenizer
    from llmjax.gpt2.config import GPT2Config
    from llmjax.gpt2.model import GPT2
    from llmjax.gpt2.weights import load_pretrained, save_pretrained
    from llmjax.infer.classify import load_classifier

__all__ = [
    "GPT2",
    "GPT2Config",
    "analyze",
    "analyze_hlo",
    "load_classifier",
    "load_pretrained",
    "load_tokenizer",
    "save_pretrained",
]

# Imported on first use: `import llmjax` stays light, and the analyser works where JAX is not installed.
_HOMES = {
    "GPT2": "llmjax.gpt2.model",
    "GPT2Config": "llmjax.gpt2.config",
    "analyze": "llmjax.analyser",
    "analyze_hlo": "llmjax.analyser",
    "load_classifier": "llmjax.infer.classify",
    "load_pretrained": "llmjax.gpt2.weights",
    "load_tokenizer": "llmjax.data.tokenizer",
    "save_pretrained": "llmjax.gpt2.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
