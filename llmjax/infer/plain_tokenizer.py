"""GPT-2's tokenizer without transformers, whose import takes longer than reading the weights of GPT-2 124M."""

import json
from pathlib import Path
from typing import Any

# What a folder's files may say without changing which tokens a text has.
_SETTINGS = {
    "add_bos_token", "add_prefix_space", "backend", "bos_token", "clean_up_tokenization_spaces", "eos_token", "errors",
    "is_local", "local_files_only", "model_max_length", "name_or_path", "pad_token", "special_tokens_map_file",
    "tokenizer_class", "tokenizer_file", "unk_token",
}  # fmt: skip
_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class PlainTokenizer:
    """The two calls of a transformers tokenizer that generation makes, answered by the `tokenizers` library alone."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """Returns {"input_ids"}, without special tokens."""
        return {"input_ids": self.backend.encode(text, add_special_tokens=False).ids}

    def decode(self, ids: list[int], **_: Any) -> str:
        """Returns the text of `ids`, special tokens included and blanks as they are."""
        return self.backend.decode(ids, skip_special_tokens=False)


def plain_tokenizer(folder: Path) -> PlainTokenizer | None:
    """Returns the tokenizer of a folder if it is certain to agree with transformers': GPT-2's byte-level BPE, no more.

    None for any other, and for one that cannot be read: transformers loads those, or says what is wrong.
    """
    try:
        if any((folder / name).exists() for name in ("added_tokens.json", "chat_template.jinja")):
            return None
        config: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / name).exists():
                config |= json.loads((folder / name).read_text("utf-8"))
        if not set(config) <= _SETTINGS or config.get("tokenizer_class", _CLASSES[0]) not in _CLASSES:
            return None
        import tokenizers

        backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # tokenizers raises bare Exception for broken files
        return None
    model, pre, decoder = backend.model, backend.pre_tokenizer, backend.decoder
    alike = (
        isinstance(model, tokenizers.models.BPE)
        and not (model.dropout or model.unk_token or model.continuing_subword_prefix or model.end_of_word_suffix)
        and not model.byte_fallback
        and backend.normalizer is None
        and isinstance(pre, tokenizers.pre_tokenizers.ByteLevel)
        and not pre.add_prefix_space
        and not config.get("add_prefix_space")
        and isinstance(decoder, tokenizers.decoders.ByteLevel)
        and backend.truncation is None
        and backend.padding is None
    )
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    plain = all(token.special and not (token.lstrip or token.rstrip or token.single_word) for token in added.values())
    named = [config[name] for name in _SPECIAL if config.get(name) is not None]
    known = all((one["content"] if isinstance(one, dict) else one) in added for one in named)
    tokenizer = PlainTokenizer(backend)
    return tokenizer if alike and plain and known and tokenizer("I love this movie.")["input_ids"] else None
