import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.errors import UserError
from llmjax.gguf import hf_config, hf_tensors, load_tokenizer, read_gguf
from tests.gguf.files import LLAMA, llama_tensors, write

KEYS = LLAMA | {
    "a.bool": True,
    "a.text": "Grüße",
    "a.texts": ["x", "", "日本"],
    "a.numbers": [1, 2, 3],
    "a.float": 1e-5,
    "tokenizer.ggml.model": "gpt2",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "llama", KEYS, llama_tensors())


def test_every_key_and_tensor_comes_back(file):
    found = read_gguf(file)
    assert found.metadata["general.architecture"] == "llama"
    for key, value in KEYS.items():
        got = found.metadata[key]
        assert (got.tolist() if isinstance(got, np.ndarray) else got) == value, key
    assert {name: t.shape for name, t in found.tensors.items()} == {n: t.shape for n, t in llama_tensors().items()}
    assert all(tensor.type == "F32" for tensor in found.tensors.values())
    assert all(
        np.array_equal(found.tensors[name].data.view(np.float32), array) for name, array in llama_tensors().items()
    )


def test_a_file_cut_anywhere_is_one_line(file, tmp_path):
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [*range(0, 200, 7), *range(200, len(whole) - 1, 997), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError) as caught:
            read_gguf(cut)
        assert str(cut) in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_header_is_read_or_refused_and_nothing_else(file, tmp_path, data):
    raw = bytearray(file.read_bytes())
    end = raw.index(b"token_embd.weight") + 600
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(raw)
    try:
        found = read_gguf(damaged)
        hf_config(found)
        for tensor in hf_tensors(found).values():
            assert tensor.rows().shape == tensor.shape
        load_tokenizer(found)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"", "it is empty"),
        (b"PK\3\4 and more", "does not begin with the letters GGUF"),
        (struct.pack("<4sI", b"GGUF", 1) + bytes(16), "version 1;"),
        (struct.pack(">4sI", b"GGUF", 3) + bytes(16), "big-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60), "ends beyond"),
    ],
)
def test_what_is_no_gguf_file(tmp_path, raw, line):
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=line):
        read_gguf(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_gguf(tmp_path / "x.gguf")


def test_one_of_several_parts_is_refused(tmp_path):
    path = write(tmp_path / "x.gguf", "llama", {"split.count": 3}, llama_tensors())
    with pytest.raises(UserError, match="one of 3 parts"):
        read_gguf(path)


def test_an_unknown_tensor_type_is_named(file, tmp_path):
    raw = bytearray(file.read_bytes())
    at = raw.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16
    raw[at : at + 4] = struct.pack("<I", 199)
    (tmp_path / "x.gguf").write_bytes(raw)
    with pytest.raises(UserError, match=r"'token_embd.weight' is of type 199"):
        read_gguf(tmp_path / "x.gguf")
