import json
import re

import gguf
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from llmjax.errors import UserError
from llmjax.gguf import load_tokenizer, read_gguf
from llmjax.infer.chat import end_ids
from tests.gguf.files import write

NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TEXTS = ["the cat sat on the mat", "12345 it's  fine\n\n x", "日本語 😀", "a\tb\r\n c", ""]


def keys(model: str, tokens: list[str], types: list[int], **more) -> dict:
    own = {"model": model, "tokens": tokens, "token_type": types} | more
    return {f"tokenizer.ggml.{key}": value for key, value in own.items()}


@pytest.fixture(scope="module")
def byte_level() -> tuple[Tokenizer, dict]:
    """A small byte-level vocabulary as `tokenizers` trains it, and the keys of a GGUF file that hold the same."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator(["the cat sat on the mat " * 9, "it's fine 2026 " * 9], trainer)
    model = json.loads(own.model.__getstate__())
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1])]
    types = [CONTROL if token in special else NORMAL for token in tokens]
    merges = [" ".join(pair) for pair in model["merges"]]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "padding_token_id": 2}
    return own, keys("gpt2", tokens, types, merges=merges, pre="gpt-2", **ids)


def load(tmp_path, more: dict):
    return load_tokenizer(read_gguf(write(tmp_path / "x.gguf", "llama", more, {})))


def test_byte_level_ids_are_those_of_the_vocabulary_it_was_made_from(tmp_path, byte_level):
    own, more = byte_level
    tokenizer = load(tmp_path, more)
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == own.encode(text).ids
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("<|im_start|>")["input_ids"] == [1]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )


@pytest.mark.parametrize(("rule", "digits"), [("gpt-2", 4), ("smollm", 1), ("llama-bpe", 3), ("qwen2", 1)])
def test_how_digits_are_cut_apart(tmp_path, byte_level, rule, digits):
    tokenizer = load(tmp_path, byte_level[1] | {"tokenizer.ggml.pre": rule, "tokenizer.ggml.add_bos_token": False})
    words = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 2026")
    assert max(len(re.sub(r"\D", "", word)) for word, _ in words) == digits


def test_first_and_last_tokens_that_the_file_asks_for(tmp_path, byte_level):
    more = byte_level[1]
    plain = load(tmp_path, more)("the")["input_ids"]
    both = load(tmp_path, more | {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True})
    assert both("the")["input_ids"] == [1, *plain, 2]
    assert both("the", add_special_tokens=False)["input_ids"] == plain
    assert load(tmp_path, more | {"tokenizer.ggml.pre": "llama-bpe"})("the")["input_ids"] == [1, *plain]


def test_chat_template_and_stop_tokens(tmp_path, byte_level):
    path = write(tmp_path / "x.gguf", "llama", byte_level[1] | {"tokenizer.chat_template": TEMPLATE}, {})
    file = read_gguf(path)
    tokenizer = load_tokenizer(file)
    messages = [{"role": "user", "content": "the cat"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|im_start|>user\nthe cat<|im_end|>\n"
    assert end_ids(tokenizer) == (0, 2)
    assert load(tmp_path, byte_level[1]).chat_template is None


def test_it_is_saved_and_loaded_as_a_folder(tmp_path, byte_level):
    from transformers import PreTrainedTokenizerFast

    tokenizer = load(tmp_path, byte_level[1] | {"tokenizer.chat_template": TEMPLATE})
    tokenizer.save_pretrained(tmp_path / "folder")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "folder")
    assert [again(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert (again.chat_template, again.eos_token) == (TEMPLATE, "<|im_end|>")


def test_sentencepiece_takes_the_pair_of_the_best_score_and_bytes_for_the_rest(tmp_path):
    pieces = ["▁", "a", "b", "c", "ab", "bc", "▁ab", "abc"]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces)]
    scores = [0.0] * 259 + [-9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, -4.0]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    tokenizer = load(tmp_path, keys("llama", tokens, types, scores=scores, **ids))

    def words(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])

    assert words("ab") == ["<s>", "▁ab"]
    assert words("abc") == ["<s>", "▁", "abc"], "bc comes before ab, then abc is made of a and bc"
    assert words("é") == ["<s>", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer("abc é a b")["input_ids"], skip_special_tokens=True) == "abc é a b"
    bare = load(
        tmp_path, keys("llama", tokens, types, scores=scores, add_space_prefix=False, add_bos_token=False, **ids)
    )
    assert bare.convert_ids_to_tokens(bare("ab")["input_ids"]) == ["ab"]


def test_word_piece(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁film", "s", "▁good", "▁.", "▁!"]
    types = [CONTROL] * 4 + [NORMAL] * 5
    ids = {"padding_token_id": 0, "unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3}
    tokenizer = load(tmp_path, keys("bert", tokens, types, **ids))
    assert tokenizer("Good FILMS.")["input_ids"] == [2, 6, 4, 5, 7, 3]
    assert tokenizer("xyz")["input_ids"] == [2, 1, 3]
    assert tokenizer("film", "good")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert tokenizer.decode([4, 5]) == "films"


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        ({"tokenizer.ggml.pre": "tekken"}, "pre-tokenizer tokenizer.ggml.pre='tekken' is not supported"),
        ({"tokenizer.ggml.model": "rwkv"}, "a tokenizer of kind 'rwkv' is not supported"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "tokenizer.ggml.eos_token_id=1000000 is no token of its"),
        ({"tokenizer.ggml.merges": ["nopair"]}, "holds 'nopair', which is no pair"),
        ({"tokenizer.ggml.merges": ["Qq Zz"]}, "merges do not fit its tokens"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "token_type is not one for each"),
    ],
)
def test_what_is_not_supported_or_damaged_is_one_line(tmp_path, byte_level, harm, line):
    with pytest.raises(UserError, match=re.escape(line)) as caught:
        load(tmp_path, byte_level[1] | harm)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_vocabulary(tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer \(no tokenizer.ggml.tokens\)"):
        load(tmp_path, {})


def test_names_of_keys_are_those_of_the_package():
    from llmjax.gguf.tokenizer import _NAMES

    theirs = {value for name, value in vars(gguf.Keys.Tokenizer).items() if name.endswith("_ID")}
    assert {f"tokenizer.ggml.{key}_token_id" for key in _NAMES if key != "cls"} <= theirs
