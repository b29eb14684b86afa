"""What a trained GPT-2 is for: classifying texts, and continuing them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmjax.infer.classify import Classifier, Prediction, load_classifier

__all__ = ["Classifier", "Prediction", "load_classifier"]


def __getattr__(name: str) -> Any:
    # Imported on first use: generating needs neither the classifier nor Flax, and starts sooner without them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llmjax.infer import classify

    return getattr(classify, name)
