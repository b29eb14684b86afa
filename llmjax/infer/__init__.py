"""What a trained GPT-2 is for: classifying texts."""

from llmjax.infer.classify import Classifier, Prediction, load_classifier

__all__ = ["Classifier", "Prediction", "load_classifier"]
