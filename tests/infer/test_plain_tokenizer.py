"""GPT-2's tokenizer without transformers: the same tokens and texts, and None where that is not certain."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.data import load_tokenizer
from llmjax.infer.plain_tokenizer import plain_tokenizer


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    load_tokenizer("gpt2").save_pretrained(folder)
    return plain_tokenizer(folder), load_tokenizer(str(folder)), folder


TEXTS = st.text() | st.lists(
    st.sampled_from(["<|endoftext|>", " ", "\n", "don't", "é", "深い", "🎈", "the", " The", "1234", "."])
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_tokens_and_texts_are_those_of_transformers(both, text):
    plain, reference, _ = both
    ids = reference(text, add_special_tokens=False)["input_ids"]
    assert plain(text, add_special_tokens=False, verbose=False)["input_ids"] == ids
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    for part in (ids, ids[1:], ids[:-1]):
        assert plain.decode(part, **options) == reference.decode(part, **options)


def test_the_backend_alone_was_loaded(both):
    assert both[0] is not None


@pytest.mark.parametrize(
    "change",
    [
        {"add_prefix_space": True},
        {"tokenizer_class": "BertTokenizer"},
        {"pad_token": "[PAD]"},
        {"extra_special_tokens": ["<x>"]},
    ],
)
def test_a_folder_that_says_more_is_left_to_transformers(both, tmp_path, change):
    copy(both[2], tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert plain_tokenizer(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
    ],
)
def test_a_tokenizer_of_another_kind_is_left_to_transformers(both, tmp_path, change):
    copy(both[2], tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert plain_tokenizer(tmp_path) is None


def test_what_cannot_be_read_is_left_to_transformers(both, tmp_path):
    assert plain_tokenizer(tmp_path) is None
    copy(both[2], tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    assert plain_tokenizer(tmp_path) is None
    copy(both[2], tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<x>": 50257}')
    assert plain_tokenizer(tmp_path) is None


def copy(source, target):
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
