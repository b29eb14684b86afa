"""Fixtures of the data tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llmjax.data import load_tokenizer


@pytest.fixture(scope="session")
def gpt2_tokenizer():
    return load_tokenizer("gpt2")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    """Writes a file into the test's folder and returns its path."""

    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_file
