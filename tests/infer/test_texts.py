"""Reading texts and writing predictions as streams: every format, every broken line by its number."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.errors import UserError
from llmjax.infer import Prediction
from llmjax.infer.texts import check_file, read_file, read_lines, to_json, write_lines

characters = st.characters(exclude_categories=("Cs",), exclude_characters="\r\n")
fields = st.text(characters.filter(lambda c: c != "\t"), max_size=20)


def read(path, content, column="text"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sizes = []
    texts = list(read_file(path, column, sizes.append))
    assert sum(sizes) == path.stat().st_size
    return texts


def line_of(path, content, column="text"):
    with pytest.raises(UserError) as error:
        read(path, content, column)
    assert "\n" not in str(error.value)
    return str(error.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(characters, max_size=20)), st.sampled_from(["\n", "\r\n"]))
def test_plain_lines_are_texts(tmp_path, texts, end):
    texts = [text.removeprefix("\ufeff") for text in texts]
    assert read(tmp_path / "in.txt", "".join(text + end for text in texts)) == texts


def test_plain_text_keeps_blank_lines_and_a_last_line_without_end(tmp_path):
    assert read(tmp_path / "in.txt", "one\n\n  \nlast") == ["one", "", "  ", "last"]
    assert read(tmp_path / "in", "\ufeffone\r\ntwo\x0b\u2028three\n") == ["one", "two\x0b\u2028three"]
    assert read(tmp_path / "in.txt", "") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(fields, fields)))
def test_tsv_columns_are_read_without_quoting(tmp_path, rows):
    content = "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows)
    assert read(tmp_path / "in.tsv", content) == [text for _, text in rows]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(fields, st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\0")))))
def test_csv_is_read_as_csv_writes_it(tmp_path, rows):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([("label", "text"), *((f"-{a}", b) for a, b in rows)])
    assert read(tmp_path / "in.csv", stream.getvalue()) == [text for _, text in rows]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)))), st.booleans())
def test_jsonl_is_read_as_json_writes_it(tmp_path, texts, ascii_only):
    content = "".join(json.dumps({"id": 1, "text": text}, ensure_ascii=ascii_only) + "\n\n" for text in texts)
    assert read(tmp_path / "in.jsonl", content) == texts


def test_another_column_may_be_named(tmp_path):
    assert read(tmp_path / "in.tsv", "review\tx\nfine\t1\n", "review") == ["fine"]
    assert read(tmp_path / "in.JSONL", '{"review": "fine"}\n', "review") == ["fine"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.txt", b"fine\nna\xefve\n", "line 2: byte 3 of the line (0xef) is not UTF-8"),
        ("in.tsv", b"text\nfine\n\xff\n", "line 3: byte 1"),
        ("in.tsv", "txt\tlabel\nfine\t1\n", "Did you mean 'txt'?"),
        ("in.tsv", "", "no column 'text'"),
        ("in.tsv", "text\ttext\na\tb\n", "'text' stands 2 times"),
        ("in.tsv", "text\tlabel\na\tb\nc\n", "line 3: 1 fields where the header has 2"),
        ("in.csv", 'text\n"one\ntwo"\n"open\n', "line 4: the CSV record"),
        ("in.csv", 'text,label\nfine,1\n"a" b,1\n', "line 3"),
        ("in.jsonl", '{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        ("in.jsonl", '["a"]\n', "line 1: JSON list where an object is needed"),
        ("in.jsonl", '{"txt": "a"}\n', "Did you mean 'txt'?"),
        ("in.jsonl", '\n{"text": null}\n', "line 2: 'text' is null, not a string"),
        ("in.jsonl", '{"text": 3}\n', "'text' is 3, not a string"),
        ("in.jsonl", '{"text": "\\ud83d"}\n', "surrogate"),
        ("in.jsonl", "[" * 100_000 + "\n", "not JSON"),
    ],
)
def test_broken_lines_are_named(tmp_path, name, content, says):
    line = line_of(tmp_path / name, content)
    assert says in line and name in line


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    assert read(tmp_path / "in.jsonl", '{"text": "\\ud83d\\ude00"}\n') == ["\U0001f600"]


def test_files_that_are_not_there(tmp_path):
    (tmp_path / "reviews.txt").write_text("x")
    assert check_file(str(tmp_path / "reviews.txt")) == tmp_path / "reviews.txt"
    with pytest.raises(UserError, match=r"Did you mean 'reviews.txt'\?"):
        check_file(str(tmp_path / "review.txt"))
    with pytest.raises(UserError, match="no such file"):
        check_file(str(tmp_path / "nowhere" / "review.txt"))
    with pytest.raises(UserError, match="is a folder"):
        check_file(str(tmp_path))


def test_lines_are_read_one_at_a_time():
    class Endless(io.RawIOBase):
        def __next__(self):
            return b"again\n"

    lines = read_lines(Endless(), "standard input", lambda size: None)
    assert [next(lines) for _ in range(3)] == ["again"] * 3


def test_a_prediction_is_one_json_line():
    prediction = Prediction('a "b"\n电', "good", 0.98765432, {"bad": 0.01234568, "good": 0.98765432}, True)
    assert to_json(prediction) == (
        '{"text": "a \\"b\\"\\n电", "label": "good", "score": 0.987654, "scores": {"bad": 0.012346, "good": 0.987654}}'
    )


def test_an_output_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    write_lines(["one", "两"], path)
    assert path.read_bytes() == "one\n两\n".encode()

    def broken():
        yield "three"
        assert [file.name for file in path.parent.iterdir()] != ["out.jsonl"]  # the temporary one is there
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(broken(), path)
    assert path.read_bytes() == "one\n两\n".encode()
    assert [file.name for file in path.parent.iterdir()] == ["out.jsonl"]
