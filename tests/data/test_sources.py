import os
import subprocess
import sys

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjax.data import DataConfig, Examples, load_dataset
from llmjax.data.sources import _limited, _quantiles, _split_off, normalised
from llmjax.errors import UserError

ROWS = "label\ttext\n" + "".join(f"{i % 2}\tsentence number {i}\n" for i in range(40))


def files(train, **more):
    return DataConfig(source="files", train=train, **more)


def tsv(*rows):
    return "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows)


def test_whole_number_labels_are_classes_in_numeric_order(write):
    path = write("a.tsv", tsv((10, "a"), (-1, "b"), ("2.0", "c"), (10, "d")))
    data = load_dataset(files(path, dev_fraction=0, test_fraction=0))
    assert data.label_names == ("-1", "2", "10")
    assert data.train.labels_N.tolist() == [2, 0, 1, 2]
    assert data.train.labels_N.dtype == np.int32
    assert (len(data.dev), len(data.test)) == (0, 0)


def test_string_labels_are_sorted_and_texts_stripped(write):
    path = write("a.tsv", tsv(("pos", " a "), ("neg", "b"), ("1", "c")))
    data = load_dataset(files(path, dev_fraction=0, test_fraction=0))
    assert data.label_names == ("1", "neg", "pos")
    assert data.train.labels_N.tolist() == [2, 1, 0]
    assert data.train.texts == ["a", "b", "c"]


def test_given_names_apply_to_names_and_to_numbers(write):
    names = ("neg", "neutral", "pos")
    by_name = load_dataset(
        files(write("a.tsv", tsv(("pos", "a"), ("neg", "b"))), label_names=names, dev_fraction=0, test_fraction=0)
    )
    by_number = load_dataset(
        files(write("b.tsv", tsv((2, "a"), (0, "b"))), label_names=names, dev_fraction=0, test_fraction=0)
    )
    assert by_name.label_names == by_number.label_names == names
    assert by_name.train.labels_N.tolist() == by_number.train.labels_N.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", tsv((1, "a"), (0, "  ")), "a.tsv line 3: the text is empty"),
        ("a.tsv", tsv((1, "a"), ("", "b")), "a.tsv line 3: the label is missing"),
        ("a.csv", "label,text\n1,a\nnan,b\n", "a.csv line 3: the label is missing ('nan')"),
        ("a.tsv", tsv((1, "a"), ("0.5", "b")), "a.tsv line 3: label '0.5' is not a class"),
        ("a.tsv", tsv((1, "a"), (1, "b")), "every row of train has the label '1'; a classifier needs two"),
        ("a.tsv", "label\ttext\n", "a.tsv has no rows"),
        ("a.tsv", tsv(*[(f"name {i}", "a") for i in range(30)]), "30 different labels in 30 rows"),
        ("a.jsonl", "", "a.jsonl has no rows"),
        ("a.jsonl", '{"text": null, "label": 1}\n', "a.jsonl line 1: the text is missing"),
        ("a.jsonl", '{"text": 3, "label": 1}\n', "a.jsonl line 1: the text is a int, not a string"),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', "a.jsonl line 1: the label is missing"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "a.jsonl line 1: the label is missing"),
        ("a.jsonl", '{"text": "a", "label": [1]}\n', "a.jsonl line 1: the label is a list"),
        ("a.jsonl", '{"text": "a", "label": 1e400}\n', "a.jsonl line 1: label inf is not a class"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', "a.jsonl line 1: the text holds half of a surrogate pair"),
    ],
)
def test_broken_rows_are_one_clear_line(write, name, content, message):
    with pytest.raises(UserError) as caught:
        load_dataset(files(write(name, content)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_that_are_no_class_are_named_with_their_place(write):
    train, dev = write("a.tsv", tsv(("pos", "a"), ("neg", "b"))), write("d.tsv", tsv(("neg", "c"), ("positive", "d")))
    with pytest.raises(UserError, match=r"d.tsv line 3: label 'positive' is not one of the classes neg, pos"):
        load_dataset(files(train, dev=dev, test_fraction=0))
    with pytest.raises(UserError, match=r"a.tsv line 2: label 'pos' .* negative, positive. Did you mean 'positive'\?"):
        load_dataset(files(write("a.tsv", tsv(("pos", "a"), ("negative", "b"))), label_names=("negative", "positive")))
    with pytest.raises(UserError, match=r"b.tsv line 3: label 2 is not one of the classes no, yes, numbered 0 to 1"):
        load_dataset(files(write("b.tsv", tsv((1, "a"), (2, "b"))), label_names=("no", "yes")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dev_fraction": 1.0}, "their sum below 1"),
        ({"dev_fraction": 0.5, "test_fraction": 0.5}, "their sum below 1"),
        ({"limit": -1}, "data.limit is -1"),
        ({"label_column": "text"}, "are both 'text'"),
        ({"label_names": ("a", "a")}, "two or more different names"),
        ({"source": "file"}, "Did you mean 'files'"),
        ({"source": "files"}, "data.train is empty"),
        ({"source": "hub:"}, "write hub:OWNER/NAME"),
    ],
)
def test_wrong_settings_are_one_clear_line(change, message):
    with pytest.raises(UserError, match=message):
        load_dataset(DataConfig(**change))


def test_too_few_rows_to_split(write):
    with pytest.raises(UserError, match=r"too few to split off 0.1 of them for test"):
        load_dataset(files(write("a.tsv", tsv((1, "a"), (0, "b")))))


words = st.sampled_from(["good", "Good!", "bad", "BAD", "film", " film ", "日本", "...", "?", "fi\ufb01"])
rows = st.lists(st.tuples(words, words, st.integers(0, 2)), min_size=1, max_size=60)


@given(rows, st.integers(0, 3), st.floats(0, 0.4), st.floats(0, 0.4))
@settings(deadline=None)
def test_a_split_loses_nothing_and_never_parts_the_same_text(table, seed, dev, test):
    texts = [f"{a} {b}" for a, b, _ in table]
    whole = Examples(texts, np.array([label for *_, label in table], np.int32))
    quantiles_N = _quantiles(whole, seed)
    assert ((quantiles_N > 0) & (quantiles_N < 1)).all()
    by_text = {}
    for text, quantile in zip(texts, quantiles_N, strict=True):
        assert by_text.setdefault(normalised(text), quantile) == quantile
    try:
        parts, _ = _split_off({"train": whole}, DataConfig(dev_fraction=dev, test_fraction=test), seed)
    except UserError:
        return  # too few rows for one of the splits
    found = [(text, label) for part in parts.values() for text, label in zip(part.texts, part.labels_N, strict=True)]
    assert sorted(found) == sorted(zip(texts, whole.labels_N, strict=True))
    groups = [{normalised(text) for text in part.texts} for part in parts.values()]
    assert len(set().union(*groups)) == sum(map(len, groups))


def test_split_and_limit_keep_the_shares_of_the_classes():
    labels_N = np.repeat(np.arange(3, dtype=np.int32), [700, 200, 100])
    whole = Examples([f"text {i}" for i in range(1000)], labels_N)
    parts, notes = _split_off({"train": whole}, DataConfig(dev_fraction=0.1, test_fraction=0.2), 0)
    assert {name: np.bincount(part.labels_N).tolist() for name, part in parts.items()} == {
        "train": [490, 140, 70],
        "dev": [70, 20, 10],
        "test": [140, 40, 20],
    }
    assert notes == [
        "test: 200 of 1000 examples split off from train",
        "dev: 100 of 1000 examples split off from train",
    ]
    assert np.bincount(_limited(whole, 10, 0).labels_N).tolist() == [7, 2, 1]


def test_seed_changes_the_split_and_order_of_rows_does_not():
    whole = Examples([f"text {i}" for i in range(50)], np.arange(50, dtype=np.int32) % 2)
    back = Examples(whole.texts[::-1], whole.labels_N[::-1])
    np.testing.assert_array_equal(_quantiles(whole, 3), _quantiles(back, 3)[::-1])
    assert (_quantiles(whole, 3) != _quantiles(whole, 4)).any()


def test_a_limit_that_leaves_one_class(write):
    with pytest.raises(UserError, match=r"a.tsv, what split and limit left of it: every row of train has the label"):
        load_dataset(files(write("a.tsv", ROWS), limit=1))


def test_limit_caps_every_split(write):
    data = load_dataset(files(write("a.tsv", ROWS), limit=6))
    assert [len(data.train), len(data.dev), len(data.test)] == [6, 4, 4]


def test_texts_shared_by_given_files_are_counted(write):
    train, dev = write("a.tsv", ROWS), write("b.tsv", tsv((1, "Sentence  number 3!"), (0, "unseen")))
    data = load_dataset(files(train, dev=dev, test_fraction=0))
    assert data.notes == ("dev: 1 of 2 texts also stand in train",)


SPLIT = """
from llmjax.data import DataConfig, load_dataset
print([sorted(int(text.split()[-1]) for text in part.texts) for part in
       (lambda data: (data.dev, data.test))(load_dataset(DataConfig(source="files", train={path!r})))])
"""


def test_the_split_is_the_same_on_every_machine_and_in_every_process(write):
    path = write("a.tsv", ROWS)
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", SPLIT.format(path=path)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == GOLDEN_SPLIT, done.stderr


GOLDEN_SPLIT = "[[4, 13, 25, 28], [9, 11, 20, 34]]"


def hub(monkeypatch, **splits):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    found = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {"sentence": [t for _, t in part], "label": [n for n, _ in part]}, features
            )
            for name, part in splits.items()
        }
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args: asked.append(args) or found)
    return asked


TRAIN = [(i % 2, f"sentence {i}") for i in range(40)]


def test_hub_splits_names_and_unlabelled_test(monkeypatch):
    asked = hub(monkeypatch, train=TRAIN, validation=[(1, "v"), (0, "w")], test=[(-1, "t")])
    data = load_dataset(DataConfig(source="hub:nyu-mll/glue/sst2", text_column="sentence"))
    assert asked == [("nyu-mll/glue", "sst2")]
    assert data.label_names == ("negative", "positive")
    assert (data.dev.texts, data.dev.labels_N.tolist()) == (["v", "w"], [1, 0])
    assert (len(data.train), len(data.test)) == (36, 4)
    assert data.notes[0] == "the hub's split 'test' has no labels and was left out"


def test_hub_mistakes(monkeypatch):
    hub(monkeypatch, train=[*TRAIN, (-1, "x")], validation=TRAIN)
    config = {"source": "hub:stanfordnlp/sst2", "text_column": "sentence"}
    with pytest.raises(UserError, match=r"hub:stanfordnlp/sst2 train row 41: the label is missing"):
        load_dataset(DataConfig(**config))
    with pytest.raises(UserError, match=r"no column 'text'; its columns are: sentence, label"):
        load_dataset(DataConfig(source="hub:stanfordnlp/sst2"))
    with pytest.raises(UserError, match=r"no split 'validaton'; it has train, validation. Did you mean 'validation'\?"):
        load_dataset(DataConfig(**config, dev="validaton"))


def test_hub_out_of_reach(monkeypatch):
    def fail(*_):
        raise ConnectionError("Couldn't reach the hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"cannot be loaded from the hub \(Couldn't reach the hub\); check the name"):
        load_dataset(DataConfig(source="hub:stanfordnlp/sst2"))


def test_real_files(shared_data):
    tweets = shared_data / "finance_tweets"
    data = load_dataset(files(str(tweets / "train.tsv"), dev=str(tweets / "dev.tsv"), test_fraction=0))
    assert (len(data.train), len(data.dev), data.label_names) == (9543, 2388, ("0", "1", "2"))
    hotels = load_dataset(files(str(shared_data / "zh_hotel" / "train.tsv"), label_names=("bad", "good")))
    assert len(hotels.train) + len(hotels.dev) + len(hotels.test) == 5823
    assert abs(len(hotels.dev) - 582) <= 3


def test_every_split_knows_where_its_texts_stand(write):
    table = [(n % 2, f"text {n}") for n in range(40)]
    data = load_dataset(files(write("a.tsv", tsv(*table)), dev_fraction=0.2, test_fraction=0.2))
    for part in (data.train, data.dev, data.test):
        numbers = [int(text.split()[1]) + 2 for text in part.texts]  # the header is line 1
        assert part.places and part.places.numbers == tuple(numbers)
        assert part.places.named([0, 1]).startswith(f"lines {numbers[0]}, {numbers[1]} of ")
