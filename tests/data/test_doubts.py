"""Slips in labelled files are told with their rows, and nothing is said of files without any."""

import csv

import pytest

from llmjax.data import DataConfig, load_dataset
from llmjax.errors import UserError

WHOLE = {"dev_fraction": 0.0, "test_fraction": 0.0}


def notes(write, content, name="a.tsv"):
    found = load_dataset(DataConfig(train=write(name, content), **WHOLE)).notes
    assert all("\n" not in line for line in found)
    return [line.partition(": ")[2] for line in found]


def tsv(*rows):
    return "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [("Good", "a"), ("bad", "b"), ("good", "c"), ("good", "d")],
            "labels that differ only by case are different classes: 'Good' (line 2), 'good' (line 4)",
        ),
        (
            [("positive", "a"), ("negative", "b"), ("1", "c"), ("negative", "d"), ("0", "e")],
            "labels are names here and numbers there: lines 4, 6 differ from the other rows",
        ),
        (
            [("1", "So good!"), ("0", "bad"), ("0", "so  GOOD"), ("1", "bad"), ("0", "bad")],
            "the same text under different labels: lines 2 and 4; lines 3 and 5",
        ),
        (
            [("1", '"He said ""no"" twice"'), ("0", "b")],
            "a TSV is read without quoting: the quotation marks that pandas puts around a field stay in line 2:"
            " save it as .csv, or with quoting=csv.QUOTE_NONE",
        ),
    ],
)
def test_a_slip_is_one_line_with_its_rows(write, rows, said):
    assert said in notes(write, tsv(*rows))


def test_clean_files_are_not_doubted(write):
    assert notes(write, tsv(("0", '"quoted" and "quoted"'), ("1", '"whole"'), ("0", "a"), ("1", "b"))) == []
    assert notes(write, 'label,text\n0,"say ""no"""\n1,b\n', "a.csv") == []


def test_what_pandas_writes_as_tsv_is_noticed(write, tmp_path):
    with (tmp_path / "p.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([("label", "text"), (0, 'a "b" c'), (1, "plain"), (0, 'he said "no"')])
    (line,) = notes(write, (tmp_path / "p.tsv").read_text())
    assert "stay in lines 2, 4:" in line


def test_a_named_file_is_read_whatever_the_job_reads_by_default(write):
    path = write("a.tsv", tsv(("0", "a"), ("1", "b")))
    assert len(load_dataset(DataConfig(train=path, **WHOLE)).train) == 2
    with pytest.raises(UserError, match=r"does not read 'mine\.tsv'"):
        DataConfig(source="vader_movies", train="mine.tsv")
