"""Text to padded, bucketed arrays: sources, tokenizer, batches."""

from llmjax.data.batches import (
    Batch,
    bucket_of,
    choose_buckets,
    eval_batches,
    pad_batch,
    steps_per_epoch,
    train_batches,
)
from llmjax.data.sources import DataConfig, Dataset, Examples, load_dataset
from llmjax.data.tokenizer import Encoded, encode, encode_cached, load_tokenizer, pad_id, token_counts

__all__ = [
    "Batch",
    "DataConfig",
    "Dataset",
    "Encoded",
    "Examples",
    "bucket_of",
    "choose_buckets",
    "encode",
    "encode_cached",
    "eval_batches",
    "load_dataset",
    "load_tokenizer",
    "pad_batch",
    "pad_id",
    "steps_per_epoch",
    "token_counts",
    "train_batches",
]
