"""The tokenizer and chat template inside a GGUF file, as a transformers fast tokenizer.

Built from the vocabulary directly: transformers' own way (`gguf_file=`) reads the file through the package gguf, which
takes many seconds, and knows no pre-tokenizer but those of the architectures it lists.
"""

from collections.abc import Mapping
from typing import Any

from llmjax.errors import UserError, did_you_mean
from llmjax.gguf.reader import GGUF

# Kinds of a token, as llama.cpp numbers them.
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6

# How byte-level vocabularies split a text into words: GPT-2's rule (Radford et al. 2019, encoder.py), and that of
# Llama 3 and Qwen2 (their tokenizer.json), which differ in how many digits a word may have.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_NEWER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = {
    **dict.fromkeys(("gpt-2", "gpt2", "smollm", "starcoder"), _GPT2),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _NEWER % "{1,3}"),
    "qwen2": _NEWER % "",
}
_DIGITS = ("smollm", "starcoder")  # each digit is cut off before GPT-2's rule
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_NAMES |= {"seperator": "sep_token", "mask": "mask_token"}  # the format spells it so
_NAMES |= {"cls": "cls_token"}  # older files have it; newer ones say bos


def load_tokenizer(file: GGUF) -> Any:
    """Returns the transformers tokenizer of a GGUF file, with its special tokens and its chat template.

    Raises UserError when the file has no vocabulary, or one of a kind that is not supported.
    """
    from transformers import PreTrainedTokenizerFast

    tokens = _need(file, "tokens")
    model = _need(file, "model")
    if model not in _BUILD:
        raise UserError(f"{file.path}: a tokenizer of kind {model!r} is not supported (only {', '.join(_BUILD)}).")
    rules = _BUILD[model](file, tokens)
    _add_special(rules, file, tokens)
    special = {name: _token(file, tokens, key) for key, name in _NAMES.items()}
    _add_begin_and_end(rules, file, special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", *["token_type_ids"] * (model == "bert"), "attention_mask"],
        **{name: token for name, token in special.items() if token is not None},
    )
    template = file.metadata.get("tokenizer.chat_template")
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def _need(file: GGUF, key: str) -> Any:
    value = file.metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, str if key == "model" else list) or not value:
        raise UserError(
            f"{file.path}: has no tokenizer (no tokenizer.ggml.{key}); give one with the tokenizer setting."
        )
    return value


def _token(file: GGUF, tokens: list[str], key: str) -> str | None:
    index = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
    if index is None:
        return None
    if not isinstance(index, int) or not 0 <= index < len(tokens):
        raise UserError(f"{file.path}: tokenizer.ggml.{key}_token_id={index!r} is no token of its {len(tokens):,}.")
    return tokens[index]


def _byte_level(file: GGUF, tokens: list[str]) -> Any:
    """GPT-2's kind: byte pairs over bytes, in words that a regular expression cuts."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    rule = file.metadata.get("tokenizer.ggml.pre", "gpt-2" if file.metadata["general.architecture"] == "gpt2" else "")
    if rule not in _WORDS:
        near = did_you_mean(str(rule), _WORDS)
        raise UserError(
            f"{file.path}: the pre-tokenizer tokenizer.ggml.pre={rule!r} is not supported "
            f"(only {', '.join(_WORDS)}).{near} Give the model's own tokenizer by name or folder."
        )
    merges = [_pair(file, text) for text in _need(file, "merges")]
    try:
        model = models.BPE({token: index for index, token in enumerate(tokens)}, merges, ignore_merges=rule in _LLAMA3)
    except Exception as error:  # the package raises bare Exception for a merge of unknown tokens
        raise UserError(f"{file.path}: tokenizer.ggml.merges do not fit its tokens ({error}).") from error
    rules = Tokenizer(model)
    if rule == "qwen2":
        rules.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_WORDS[rule]), behavior="isolated")
    steps = [pre_tokenizers.Digits(individual_digits=True)] if rule in _DIGITS else []
    rules.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    rules.decoder = decoders.ByteLevel()
    return rules


def _pair(file: GGUF, text: str) -> tuple[str, str]:
    left, space, right = text.partition(" ")
    if not (left and space and right):
        raise UserError(f"{file.path}: tokenizer.ggml.merges holds {text!r}, which is no pair of tokens.")
    return left, right


def _sentencepiece(file: GGUF, tokens: list[str]) -> Any:
    """Llama 2's kind: byte pairs over characters, the pair of the best score first, unknown characters as bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    scores = file.metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise UserError(f"{file.path}: tokenizer.ggml.scores are not one for each of its {len(tokens):,} tokens.")
    vocab = {token: index for index, token in enumerate(tokens)}
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    merges = []
    for index, token in enumerate(tokens):
        if kinds is not None and kinds[index] in (_CONTROL, _USER_DEFINED, _BYTE):
            continue
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        merges += [(-scores[index], index, pair) for pair in pairs if pair[0] in vocab and pair[1] in vocab]
    merges.sort(key=lambda merge: merge[:2])
    unknown = _token(file, tokens, "unknown")
    pairs = [pair for _, _, pair in merges]
    rules = Tokenizer(models.BPE(vocab, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = file.metadata.get("tokenizer.ggml.add_space_prefix", True)
    rules.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if prefix else []), normalizers.Replace(" ", "▁")]
    )
    rules.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *([decoders.Strip(" ", 1, 0)] * prefix)]
    )
    return rules


def _word_piece(file: GGUF, tokens: list[str]) -> Any:
    """BERT's kind, lower-cased. llama.cpp marks the beginning of a word ("▁a"), BERT its continuation ("##a")."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    kinds = file.metadata.get("tokenizer.ggml.token_type")
    own = [kinds is not None and kinds[index] == _CONTROL for index in range(len(tokens))]
    marked = [
        token if special else token[1:] if token.startswith("▁") else f"##{token}"
        for token, special in zip(tokens, own, strict=True)
    ]
    unknown = _token(file, tokens, "unknown") or "[UNK]"
    rules = Tokenizer(models.WordPiece({token: index for index, token in enumerate(marked)}, unk_token=unknown))
    rules.normalizer = normalizers.BertNormalizer(lowercase=True)
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rules.decoder = decoders.WordPiece()
    return rules


_BUILD = {"gpt2": _byte_level, "llama": _sentencepiece, "bert": _word_piece}


def _add_special(rules: Any, file: GGUF, tokens: list[str]) -> None:
    from tokenizers import AddedToken

    kinds = file.metadata.get("tokenizer.ggml.token_type")
    if kinds is None:
        return
    if len(kinds) != len(tokens):
        raise UserError(f"{file.path}: tokenizer.ggml.token_type is not one for each of its {len(tokens):,} tokens.")
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        found = [AddedToken(tokens[i], normalized=False, special=special) for i in (kinds == kind).nonzero()[0]]
        (rules.add_special_tokens if special else rules.add_tokens)(found)


def _add_begin_and_end(rules: Any, file: GGUF, special: Mapping[str, str | None]) -> None:
    """Puts the first and last token around every text that the file asks for, as llama.cpp does by default."""
    from tokenizers import processors

    model, rule = file.metadata["tokenizer.ggml.model"], file.metadata.get("tokenizer.ggml.pre")
    default = {"bos": model in ("llama", "bert") or rule in _LLAMA3, "eos": model == "bert"}
    first, last = special["bos_token"], special["eos_token"]
    if model == "bert":
        first, last = special["cls_token"] or first, special["sep_token"] or last
    kept = [
        token if token is not None and file.metadata.get(f"tokenizer.ggml.add_{key}_token", default[key]) else None
        for key, token in (("bos", first), ("eos", last))
    ]
    begin, end = ([] if token is None else [token] for token in kept)
    if begin or end:
        ids = [(token, rules.token_to_id(token)) for token in dict.fromkeys([*begin, *end])]
        rules.post_processor = processors.TemplateProcessing(
            single=[*begin, "$A", *end], pair=[*begin, "$A", *end, "$B:1", *[f"{token}:1" for token in end]],
            special_tokens=ids,
        )  # fmt: skip
