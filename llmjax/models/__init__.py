"""Language models: one definition of each block, a family a file, weights from and to transformers' folders."""

from llmjax.models.config import ModelConfig
from llmjax.models.families import FAMILIES, SIZES, Family, family_of, from_hf, from_size, make_model

__all__ = ["FAMILIES", "SIZES", "Family", "ModelConfig", "family_of", "from_hf", "from_size", "make_model"]
