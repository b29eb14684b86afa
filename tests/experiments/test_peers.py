"""The benchmark: what is said of a contestant that died, and what its cases read."""

import signal

import jax
import pytest

from experiments.benchmark import weight_bytes
from experiments.peers.case import Case
from experiments.peers.gguf_file import write
from experiments.peers.ours import Contestant
from experiments.peers.runner import ended
from llmjax.data.tokenizer import load_tokenizer
from llmjax.models.families import from_size
from llmjax.models.params import init_params
from llmjax.models.weights import save_pretrained


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


@pytest.mark.parametrize("case", [Case("decode", 1, 4, "float32"), Case("prefill", 2, 16, "float32")])
def test_our_own_contestant_runs_every_kind_of_case(case, tmp_path):
    config = from_size("tiny")
    params = init_params(config, "lm", jax.random.key(0))
    save_pretrained(tmp_path, config, params, "lm", load_tokenizer("gpt2"))
    contestant = Contestant(str(tmp_path), "float32", 1)
    assert contestant.run(case).seconds > 0
    for kind in ("classify", "train") if case.kind == "decode" else ():
        assert contestant.run(Case(kind, 2, 8, "float32")).seconds > 0
