"""A tokenizer made of the user's own texts, for scripts that GPT-2's vocabulary writes byte by byte."""

import string
from collections.abc import Iterable, Sequence
from typing import Any

from llmjax.data.tokenizer import quiet, sample

SIZE = 16_000  # tokens at most
RARE = 2  # a piece that fewer words have gets no token of its own
LONGEST = 24  # characters of a token
# Tokens a character above which a tokenizer does not suit the texts. GPT-2's takes 0.2 to 0.3 for English, 0.35 for
# other languages in Latin script, and some 2 for Chinese.
MANY = 0.5

_UNKNOWN, _END = "<unk>", "<|endoftext|>"


def tokens_per_character(tokenizer: Any, texts: Sequence[str]) -> float:
    """Returns how many tokens `tokenizer` makes of a character of `texts`, of which it looks at some thousand."""
    some = sample(texts)
    ids = tokenizer(some, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return sum(map(len, ids)) / max(1, sum(map(len, some)))


def train_tokenizer(texts: Iterable[str]) -> Any:
    """Returns a transformers tokenizer whose vocabulary comes from `texts`; equal texts give equal tokenizers.

    Lower case and compatibility forms (NFKC); words split at spaces and punctuation, each Chinese character a word;
    within words byte-pair encoding (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword
    Units") over characters. A character that no text has is the unknown token; ASCII is always known.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    with quiet():
        from transformers import PreTrainedTokenizerFast
    rules: Any = Tokenizer(models.BPE(unk_token=_UNKNOWN, fuse_unk=True))
    words = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True)
    rules.normalizer = normalizers.Sequence([normalizers.NFKC(), words])
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=SIZE,
        min_frequency=RARE,
        max_token_length=LONGEST,
        initial_alphabet=[char for char in string.printable if not char.isspace()],
        special_tokens=[_UNKNOWN, _END],
        show_progress=False,
    )
    rules.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=rules, unk_token=_UNKNOWN, eos_token=_END, pad_token=_END)
