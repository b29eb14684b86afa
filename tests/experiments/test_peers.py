"""The benchmark's contestants: what is said of one that died."""

import signal

from experiments.peers.runner import ended


def test_an_illegal_instruction_names_the_way_out() -> None:
    said = ended("llama.cpp", -signal.SIGILL, "/venv/bin/python", "peers.log")
    assert "illegal instruction" in said and "\n" not in said
    assert "/venv/bin/python -m pip install" in said and said.endswith("--no-binary llama-cpp-python llama-cpp-python")
    assert "install a version built for this one" in ended("ctranslate2", -signal.SIGILL, "python", "peers.log")


def test_any_other_end_names_the_log() -> None:
    assert ended("llama.cpp", 1, "python", "peers.log") == "its process ended with status 1; peers.log has its output"
