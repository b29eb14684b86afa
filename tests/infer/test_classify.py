"""Classification of lists and streams: order, shapes, padding, blank and overlong texts."""

import dataclasses
import itertools
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmjax
from llmjax.data import encode, load_tokenizer
from llmjax.errors import UserError
from llmjax.infer import Classifier, classify, load_classifier
from llmjax.infer.classify import batches, bucket_lengths, row_counts
from llmjax.models.families import from_size, make_model
from llmjax.models.params import init_params
from llmjax.models.weights import save_pretrained

CONFIG = from_size("tiny", n_layer=1, n_positions=40, label_names=("bad", "so-so", "good"))
APPLY = jax.jit(make_model(CONFIG, "classifier").apply)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("gpt2")


@pytest.fixture(scope="module")
def params():
    params = init_params(CONFIG, "classifier", jax.random.key(0))
    return {**params, "score": {"kernel": 50 * params["score"]["kernel"]}}  # so that texts differ in their scores


@pytest.fixture(scope="module")
def classifier(params, tokenizer):
    return Classifier.from_params(CONFIG, params, tokenizer)


WORDS = ("film", "plot", "I love", "I hate", "so", "good", "bad", "unwatchable", "é", "电影")


def some_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [f"{i} " + " ".join(rng.choice(WORDS, rng.integers(0, 12))) for i in range(count)]


def one_by_one(classifier, text):
    """The definition: the text alone, unpadded, through the model itself."""
    ids = classifier.tokenizer(text)["input_ids"][: CONFIG.context] or [classifier.tokenizer.eos_token_id]
    logits = APPLY({"params": classifier.params}, jnp.array([ids]))
    return np.asarray(jax.nn.softmax(logits[0]))


def test_predictions_are_those_of_the_model_alone(classifier):
    texts = ["", "I love this movie.", "no", "word " * 30, "word " * 200]
    for text, prediction in zip(texts, classifier.classify(texts), strict=True):
        want = one_by_one(classifier, text)
        np.testing.assert_allclose(list(prediction.scores.values()), want, atol=1e-5)
        assert list(prediction.scores) == ["bad", "so-so", "good"]
        assert prediction.text == text
        assert prediction.label == CONFIG.label_names[int(want.argmax())]
        assert prediction.score == max(prediction.scores.values())
        assert prediction.truncated == (text == "word " * 200)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 30), chunk=st.integers(1, 9), seed=st.integers(0, 5))
def test_a_stream_keeps_the_order_whatever_the_chunks(classifier, count, chunk, seed):
    texts = some_texts(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "CHUNK", chunk)
        streamed = list(classifier.classify_stream(iter(texts)))
    assert [p.text for p in streamed] == texts
    whole = classifier.classify(texts)
    for one, other in zip(streamed, whole, strict=True):
        np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=1e-5)


def test_a_stream_reads_no_further_than_it_must(classifier, monkeypatch):
    monkeypatch.setattr(classify, "CHUNK", 10)
    taken = itertools.count()
    read = 0

    def texts():
        nonlocal read
        for read in taken:
            yield f"text {read}"

    stream = classifier.classify_stream(texts())
    for _ in range(25):
        next(stream)
    assert read < 25 + 4 * 10
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tokenizer")]


def test_an_error_of_the_source_reaches_the_caller_after_what_came_before(classifier, monkeypatch):
    monkeypatch.setattr(classify, "CHUNK", 2)

    def texts():
        yield from ("one", "two", "three", "four", "five")
        raise UserError("line 6 is broken")

    with pytest.raises(UserError, match="line 6 is broken"):
        list(classifier.classify_stream(texts()))


def test_few_shapes_are_compiled(params, tokenizer):
    config = dataclasses.replace(CONFIG, layer_norm_epsilon=1.1e-5)  # a compiled function of its own
    classifier = Classifier.from_params(config, params, tokenizer)
    for seed in range(4):
        classifier.classify(some_texts(200, seed))
    for count in range(1, 20):
        classifier.classify(some_texts(count))
    assert classifier.apply._cache_size() <= 3 * len(bucket_lengths(CONFIG.context))


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_bucket_lengths_double_up_to_the_context(context):
    lengths = bucket_lengths(context)
    assert lengths[-1] == context
    assert list(lengths) == sorted(set(lengths))
    assert all(length % 16 == 0 for length in lengths[:-1])
    assert len(lengths) <= 10
    assert bucket_lengths(1024) == (16, 32, 64, 128, 256, 512, 1024)


@settings(deadline=None)
@given(rows=st.integers(1, 5000), length=st.sampled_from([1, 16, 100, 128, 256, 1024, 4096, 100_000]))
def test_row_counts_hold_all_rows_with_little_waste(rows, length):
    counts = row_counts(rows, length)
    assert sum(counts) >= rows
    assert sum(counts[:-1]) < rows
    assert set(counts) <= {1, min(8, max(counts)), max(counts)}
    assert sum(counts) <= max(8, 2 * rows)
    assert max(counts) * length <= max(8192, length)
    assert counts == [1] or rows > 1


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=200))
def test_batches_hold_every_text_once(lengths):
    from llmjax.data import Encoded

    offsets_M = np.cumsum([0, *lengths], dtype=np.int64)
    encoded = Encoded(np.arange(1, offsets_M[-1] + 1, dtype=np.int32), offsets_M, 0, 0)
    seen = []
    for rows_R, tokens_BL, lengths_B in batches(encoded, 40):
        assert tokens_BL.shape[1] in bucket_lengths(40)
        assert tokens_BL.shape[0] == len(lengths_B) >= len(rows_R)
        for at, row in enumerate(rows_R):
            assert lengths_B[at] == lengths[row]
            np.testing.assert_array_equal(tokens_BL[at, : lengths[row]], encoded[row])
            assert not tokens_BL[at, lengths[row] :].any()
        assert (lengths_B[len(rows_R) :] == 1).all()
        seen.extend(rows_R.tolist())
    assert sorted(seen) == list(range(len(lengths)))


def test_an_overlong_text_keeps_the_tokens_its_tokenizer_ends_with(params, tmp_path):
    """A BERT tokenizer puts [SEP] last, and the classifier reads the last token: the cut must keep it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "I", "love", "this", "movie"]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    classifier = Classifier.from_params(CONFIG, params, tokenizer)
    seen = []
    spy = dataclasses.replace(classifier, apply=lambda p, t, n: seen.append((t, n)) or classifier.apply(p, t, n))
    short, long = spy.classify(["I love", "movie " * 100])
    assert (short.truncated, long.truncated) == (False, True)
    (short_BL, _), (long_BL, lengths_B) = seen
    assert short_BL[0, :4].tolist() == [1, 4, 5, 2]
    assert lengths_B[0] == 40 and long_BL[0].tolist() == [1] + [7] * 38 + [2]


def test_a_tokenizer_of_another_model_is_refused(params, tokenizer):
    config = dataclasses.replace(CONFIG, vocab_size=100)
    small = {**params, "wte": {"embedding": params["wte"]["embedding"][:100]}}
    with pytest.raises(UserError, match="vocabulary has 100"):
        Classifier.from_params(config, small, tokenizer).classify(["I love this movie."])


def test_one_class_is_no_classifier(params, tokenizer):
    with pytest.raises(UserError, match="at least 2 classes"):
        Classifier.from_params(dataclasses.replace(CONFIG, label_names=("score",)), params, tokenizer)


def test_a_bare_string_is_not_taken_for_a_list(classifier):
    with pytest.raises(UserError, match=r"classify\(\[text\]\)"):
        classifier.classify("I love this movie.")


def test_nothing_in_nothing_out(classifier):
    assert classifier.classify([]) == []


def test_a_saved_classifier_is_loaded_by_its_folder_or_workdir(classifier, params, tokenizer, tmp_path):
    save_pretrained(tmp_path / "run" / "best", CONFIG, params, "classifier", tokenizer)
    texts = some_texts(5)
    for path in (tmp_path / "run", str(tmp_path / "run" / "best")):
        loaded = llmjax.load_classifier(path)
        assert loaded.label_names == CONFIG.label_names
        assert loaded.classify(texts) == classifier.classify(texts)
    half = load_classifier(tmp_path / "run", dtype="bfloat16")
    for one, other in zip(half.classify(texts), classifier.classify(texts), strict=True):
        np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=0.05)


def test_a_model_without_tokenizer_asks_for_its_name(params, tokenizer, tmp_path):
    save_pretrained(tmp_path / "m", CONFIG, params, "classifier")
    with pytest.raises(UserError, match="no tokenizer files"):
        load_classifier(tmp_path / "m")
    assert len(load_classifier(tmp_path / "m", tokenizer="gpt2").classify(["hello"])) == 1


def test_transformers_gives_the_same_scores(params, tokenizer, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the `reference` extra")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    save_pretrained(tmp_path / "m", CONFIG, params, "classifier", tokenizer)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    texts = some_texts(20)
    inputs = their_tokenizer(texts, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        want = torch.softmax(theirs(**inputs).logits, -1).numpy()
    got = np.array([list(p.scores.values()) for p in load_classifier(tmp_path / "m").classify(texts)])
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert got.std(axis=0).min() > 1e-3


def test_an_empty_text_is_the_end_of_text_token(classifier, tokenizer):
    encoded = encode(tokenizer, [""], 5, empty_id=tokenizer.eos_token_id)
    assert encoded[0].tolist() == [50256]
    blank, named = classifier.classify(["", "<|endoftext|>"])
    assert blank.scores == pytest.approx(named.scores, abs=1e-6)


def test_the_package_is_light_until_used():
    import subprocess
    import sys

    code = (
        "import sys, llmjax; assert not {'jax', 'flax', 'numpy', 'transformers'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "load_classifier" in dir(llmjax)
    with pytest.raises(AttributeError, match="load_nothing"):
        _ = llmjax.load_nothing
    assert json.dumps(sorted(llmjax.__all__))
