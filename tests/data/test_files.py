import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.data.files import read_file
from llmjax.errors import UserError


def read(path):
    return read_file(path, "text", "label")


def test_tsv_takes_quotes_for_text_and_counts_lines_as_an_editor_does(write):
    rows = read(write("a.tsv", 'id\tlabel\ttext\n1\tpos\t"quoted\n\n2\tneg\tsays "no\u2028\x0c\x85 end\n3\tpos\tNA\n'))
    assert rows.texts == ['"quoted', 'says "no\u2028\x0c\x85 end', "NA"]
    assert rows.labels == ["pos", "neg", "pos"]
    assert rows.places == [2, 4, 5]
    assert rows.where(1).endswith("a.tsv line 4")


def test_windows_files_with_byte_order_mark(write):
    rows = read(write("a.tsv", b"\xef\xbb\xbftext\tlabel\r\nfine\t1\r\nbad\t0\r\n"))
    assert (rows.texts, rows.labels) == (["fine", "bad"], ["1", "0"])


def test_csv_quoting_and_line_numbers_over_newlines_in_quotes(write):
    rows = read(write("a.csv", 'label,text\n1,"a, ""b""\nc"\n\n0,NA\n'))
    assert rows.texts == ['a, "b"\nc', "NA"]
    assert rows.places == [2, 5]


def test_csv_field_longer_than_the_csv_modules_limit(write):
    before = csv.field_size_limit()
    assert len(read(write("a.csv", f"text,label\n{'x' * 200_000},1\n")).texts[0]) == 200_000
    assert csv.field_size_limit() == before


def test_jsonl(write):
    lines = [{"text": "tab\t and\nnewline", "label": 1, "more": [1]}, {"label": "x", "text": "日本"}]
    rows = read(write("a.jsonl", "\n".join(json.dumps(line) for line in lines) + "\n\n"))
    assert rows.texts == ["tab\t and\nnewline", "日本"]
    assert rows.labels == [1, "x"]


def test_parquet_with_and_without_class_names(tmp_path):
    table = pyarrow.table({"text": ["a", "b"], "label": [1, 0], "other": [0.5, 0.5]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = read(str(tmp_path / "a.parquet"))
    assert (rows.texts, rows.labels, rows.label_names) == (["a", "b"], [1, 0], ())
    assert rows.where(1).endswith("a.parquet row 2")

    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    named = table.select(["text", "label"]).replace_schema_metadata(meta)
    pyarrow.parquet.write_table(named, tmp_path / "b.parquet")
    assert read(str(tmp_path / "b.parquet")).label_names == ("no", "yes")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"text\tlabel\nok\t1\nbad \xff\t0\n", "a.tsv line 3: byte 5 of the line (0xff) is not UTF-8"),
        ("a.tsv", "text\tlabel\nok\t1\nno label\n", "a.tsv line 3: 1 fields where the header has 2"),
        ("a.tsv", "text\tlabel\nok\t1\tx\n", "a.tsv line 2: 3 fields where the header has 2"),
        ("a.tsv", "texts\tlabel\nok\t1\n", "no column 'text'; its columns are: texts, label. Did you mean 'texts'?"),
        ("a.tsv", "text\tlabel\ttext\nok\t1\tx\n", "column 'text' stands 2 times in the header"),
        ("a.tsv", "", "a.tsv is empty"),
        ("a.csv", "\n\n", "a.csv is empty"),
        ("a.csv", 'text,label\nok,1\n"open,0\nmore,1\n', "a.csv line 3: the CSV record that starts here is malformed"),
        ("a.csv", "text,label\nok\n", "a.csv line 2: 1 fields where the header has 2"),
        ("a.csv", b"\xff\xfet\x00", "a.csv line 1: byte 1 of the line (0xff) is not UTF-8"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', "a.jsonl line 2: not a JSON object on one line"),
        ("a.jsonl", '[{"text": "a", "label": 1}]\n', "a.jsonl line 1: JSON list where an object is needed"),
        ("a.jsonl", '{"text": "a", "lable": 1}\n', "a.jsonl line 1: no column 'label'"),
        ("a.jsonl", "[" * 100_000 + "\n", "a.jsonl line 1: not a JSON object on one line"),
        ("a.parquet", b"no such thing", "a.parquet cannot be read as parquet"),
        ("a.txt", "text", "cannot tell its format; its name must end in .tsv, .csv, .jsonl, .parquet"),
    ],
)
def test_a_broken_file_is_one_clear_line(write, name, content, message):
    with pytest.raises(UserError) as caught:
        read(write(name, content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(write, tmp_path):
    write("train.tsv", "")
    with pytest.raises(UserError, match=r"no such file. Did you mean 'train.tsv'\?"):
        read(str(tmp_path / "trian.tsv"))
    with pytest.raises(UserError, match="there is no folder"):
        read(str(tmp_path / "nowhere" / "train.tsv"))
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read(str(tmp_path / "folder.tsv"))


def test_a_parquet_without_the_column(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "labels": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'label'; its columns are: text, labels. Did you mean 'labels'\?"):
        read(str(tmp_path / "a.parquet"))


fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), min_size=1)


@given(st.lists(st.tuples(fields, fields)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_table_survives_tsv_and_csv(write, table):
    tsv = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in table)
    file = io.StringIO()
    csv.writer(file).writerows([("text", "label"), *table])
    for name, content in (("a.tsv", tsv), ("a.csv", file.getvalue())):
        rows = read(write(name, content))
        assert list(zip(rows.texts, rows.labels, strict=True)) == table
        assert rows.places == list(range(2, len(table) + 2))
