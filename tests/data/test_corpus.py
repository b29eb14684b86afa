import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.data.corpus import CorpusConfig, load_corpus, split_end
from llmjax.errors import UserError


def test_a_file_is_a_text_a_line_of_jsonl_too(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "sub" / "b.md").write_text("three")
    (tmp_path / "c.jsonl").write_text('{"text": "four"}\n\n{"text": " "}\n{"text": "five"}\n')
    (tmp_path / "d.bin").write_bytes(b"\xff")
    corpus = load_corpus(CorpusConfig(train=str(tmp_path), dev_fraction=0.0))
    assert corpus.train == ["one\n\ntwo\n", "four", "five", "three"] and corpus.dev == []
    named = load_corpus(CorpusConfig(train=str(tmp_path / "a.txt"), dev=str(tmp_path / "c.jsonl")))
    assert (named.train, named.dev) == (["one\n\ntwo\n"], ["four", "five"])


@settings(deadline=None)
@given(st.lists(st.text("ab \n", min_size=1, max_size=30), min_size=1, max_size=6), st.floats(0, 0.99))
def test_the_end_is_split_off_where_a_line_or_word_begins(texts: list[str], fraction: float) -> None:
    train, dev = split_end(texts, fraction)
    assert " ".join(train + dev).split() == " ".join(texts).split()
    assert sum(map(len, dev)) <= fraction * sum(map(len, texts)) + 0.5
    if train and dev and train[-1] not in texts:
        assert train[-1][-1] in "\n "


def test_one_long_text_is_cut_at_a_line() -> None:
    lines = [f"line {number}\n" for number in range(100)]
    train, dev = split_end(["".join(lines)], 0.1)
    assert len(train) == len(dev) == 1 and train[0] + dev[0] == "".join(lines)
    assert dev[0].startswith("line 9") and 60 < len(dev[0]) <= 0.1 * len("".join(lines))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "no text in it"),
        ("a.txt", b"ok\n\xff", "line 2.*UTF-8"),
        ("a.jsonl", b'{"text": 3}', "'text' is 3, not a string"),
        ("a.jsonl", b'{"txt": "x"}', "no column 'text'.*Did you mean 'txt'"),
        ("a.jsonl", b"\n[1]", "line 2: JSON list where an object"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.bin", b"x", "must end in"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_corpus(CorpusConfig(train=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "no text was named"),
        ({"source": "file"}, "Did you mean 'files'"),
        ({"train": "nowhere.txt"}, "no such file"),
        ({"dev_fraction": 1.0}, r"data\.dev_fraction is 1\.0"),
    ],
)
def test_settings_that_cannot_work(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_corpus(CorpusConfig(**values))


def test_a_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    class Part(dict):
        column_names = ("words",)

    found = {name: Part(words=[name, "", None]) for name in ("train", "validation")}
    monkeypatch.setattr("llmjax.data.corpus.load_hub", lambda source: found)
    corpus = load_corpus(CorpusConfig("hub:a/b", text_column="words"))
    assert (corpus.train, corpus.dev, corpus.origin) == (["train"], ["validation"], "hub:a/b")
    with pytest.raises(UserError, match=r"no split 'tain'.*Did you mean 'train'"):
        load_corpus(CorpusConfig("hub:a/b", train="tain", text_column="words"))
    with pytest.raises(UserError, match="no column 'text'"):
        load_corpus(CorpusConfig("hub:a/b"))
    assert json.dumps(corpus.dev)
