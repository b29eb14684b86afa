from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.data import encode, load_tokenizer
from llmjax.data.trained_tokenizer import MANY, tokens_per_character, train_tokenizer

CHINESE = ["房间很干净，服务也不错。", "服务太差，房间又小又吵。", "位置很好，早餐不错。"] * 3
MIXED = [*CHINESE, "Wi-Fi is slow, room 302.", "Прекрасный отель, вернусь ещё", "とても静かな部屋でした"]


@pytest.fixture(scope="module")
def mixed():
    return train_tokenizer(MIXED)


def test_a_chinese_character_is_a_token_and_a_strange_one_is_unknown(mixed) -> None:
    ids = mixed("房间不错")["input_ids"]
    assert [mixed.decode([token]) for token in ids] == ["房", "间", "不", "错"]
    assert mixed("龘")["input_ids"] == [mixed.unk_token_id]
    assert tokens_per_character(mixed, CHINESE) == pytest.approx(1.0, abs=0.01)


def test_gpt2s_vocabulary_suits_english_and_not_chinese() -> None:
    tokenizer = load_tokenizer("gpt2-words")
    assert tokens_per_character(tokenizer, ["The room was clean, and the staff were kind."] * 3) < MANY / 1.5
    assert tokens_per_character(tokenizer, CHINESE) > 2 * MANY


def test_equal_texts_give_equal_tokenizers_and_a_folder_gives_it_back(mixed, tmp_path: Path) -> None:
    assert train_tokenizer(MIXED).backend_tokenizer.to_str() == mixed.backend_tokenizer.to_str()
    mixed.save_pretrained(str(tmp_path))
    again = load_tokenizer(str(tmp_path))
    for text in [*MIXED, "WI-FI？", "龘"]:
        assert again(text)["input_ids"] == mixed(text)["input_ids"]


@given(st.text(max_size=40))
def test_any_text_gives_tokens_within_the_vocabulary(mixed, text: str) -> None:
    encoded = encode(mixed, [text], 64, empty_id=mixed.eos_token_id)
    assert len(encoded[0]) and encoded.tokens_T.max() < len(mixed)


def test_no_texts_to_look_at_is_no_division_by_zero(mixed) -> None:
    assert tokens_per_character(mixed, [""]) == 0.0
