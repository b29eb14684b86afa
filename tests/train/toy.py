"""A problem that a tiny GPT-2 learns in seconds: which of two marker tokens stands in the text, once or more."""

import numpy as np

from llmjax.data.tokenizer import Encoded
from llmjax.models.gpt2 import GPT2Config
from llmjax.train.classification import Split

MODEL = GPT2Config(
    vocab_size=50,
    n_positions=16,
    n_embd=16,
    n_layer=2,
    n_head=2,
    resid_pdrop=0.1,
    embd_pdrop=0.1,
    attn_pdrop=0.1,
    label_names=("no", "yes"),
)


def make_split(examples: int, seed: int, longest: int = 12) -> Split:
    """Returns texts of tokens 5..39 with token 1 or 2, which tells the class, in half the places; 3 is padding."""
    random = np.random.default_rng(seed)
    labels_N = random.integers(0, 2, examples).astype(np.int32)
    rows = []
    for label in labels_N:
        row = random.integers(5, 40, random.integers(2, longest + 1))
        row[random.permutation(len(row))[: (len(row) + 1) // 2]] = 1 + label
        rows.append(row)
    offsets_M = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Split(Encoded(np.concatenate([[], *rows]).astype(np.int32), offsets_M, 0, 3), labels_N)
