"""The benchmark: what is said of a contestant that died, and what its cases read."""

import signal

from experiments.benchmark import weight_bytes
from experiments.peers.gguf_file import write
from experiments.peers.runner import ended
from llmjax.models.families import from_size


def test_an_illegal_instruction_names_the_way_out() -> None:
    said = ended("llama.cpp", -signal.SIGILL, "/venv/bin/python", "peers.log")
    assert "illegal instruction" in said and "\n" not in said
    assert "/venv/bin/python -m pip install" in said and said.endswith("--no-binary llama-cpp-python llama-cpp-python")
    assert "install a version built for this one" in ended("ctranslate2", -signal.SIGILL, "python", "peers.log")


def test_any_other_end_names_the_log() -> None:
    assert ended("llama.cpp", 1, "python", "peers.log") == "its process ended with status 1; peers.log has its output"


def test_weights_that_a_step_reads_by_family_and_width():
    d, f, v = 32, 128, 50_257  # tiny: GPT-2's four products a layer in three matrices, and the embedding as the head
    assert weight_bytes(from_size("tiny"), "float32") == 4 * (2 * (4 * d * d + 2 * d * f) + v * d)
    llama = from_size("smollm2-135m")
    layer = 576 * (2 * 576 + 2 * 192) + 3 * 576 * 1536
    assert weight_bytes(llama, "4-bit") == round((30 * layer + 49_152 * 576) * 20 / 32)


def test_a_gguf_file_is_read_by_llama_cpp_as_it_is(tmp_path):
    assert write(tmp_path / "any.gguf", "q4_1") == tmp_path / "any.gguf"
