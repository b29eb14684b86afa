"""Text as it comes: what may be shown, and where a stop string cuts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.data import load_tokenizer
from llmjax.infer.text import continuation, find_stop, settled

WORDS = st.text(alphabet="abé你🙂", min_size=1, max_size=4)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("gpt2")


def streamed(texts, stop=()):
    """What a reader sees of a text that grows as `texts`: pieces, and the last text cut at its stop string."""
    pieces, shown = [], 0
    for text in texts:
        if find_stop(text, stop) >= 0:
            break
        pieces.append(text[shown : settled(text, stop)])
        shown += len(pieces[-1])
    final = text if find_stop(text, stop) < 0 else text[: find_stop(text, stop)]
    return [*pieces, final[shown:]], final


@pytest.mark.parametrize(
    "text", ["plain words", " 你好，世界", "🙂🙃 and 👩\u200d👩\u200d👧", "naïve café", "\x00\ttabs"]
)
def test_pieces_make_up_the_text_and_split_no_character(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    prompt = tokenizer("Say:")["input_ids"]
    pieces, final = streamed([continuation(tokenizer, prompt, ids[: n + 1]) for n in range(len(ids))])
    assert "".join(pieces) == final == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_never_become_a_character_are_shown_at_the_end(tokenizer):
    ids = tokenizer("你好")["input_ids"][:-1]
    pieces, final = streamed([continuation(tokenizer, [], ids[: n + 1]) for n in range(len(ids))])
    assert final.startswith("你") and final.endswith("\ufffd")
    assert "".join(pieces) == final
    assert not any("\ufffd" in piece for piece in pieces[:-1])


@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, max_size=3))
def test_nothing_of_a_stop_string_is_ever_shown(words, stop):
    texts = ["".join(words[: n + 1]) for n in range(len(words))]
    pieces, final = streamed(texts, stop)
    assert "".join(pieces) == final
    whole = texts[-1]
    assert final == (whole if find_stop(whole, stop) < 0 else whole[: find_stop(whole, stop)])


def test_the_first_stop_string_counts():
    assert find_stop("one two three", ["three", "two"]) == 4
    assert find_stop("one two three", ["four"]) == -1
    assert find_stop("one", []) == -1


def test_a_beginning_of_a_stop_string_is_held_back():
    assert settled("text \n\n#", ["\n\n##"]) == len("text ")
    assert settled("text \n\n#", ["#!", "z"]) == len("text \n\n")
    assert settled("text", []) == 4
