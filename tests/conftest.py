"""What every test may use."""

import os
from pathlib import Path

# Before JAX is imported anywhere: the tests run on the CPU, whatever else is attached.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The larger data sets that may lie beside a development checkout; the test is skipped where they are absent."""
    return beside("data")


@pytest.fixture(scope="session")
def shared_wild() -> Path:
    """HLO from strangers that may lie beside a development checkout; the test is skipped where it is absent."""
    return beside("wild")


def beside(name: str) -> Path:
    folder = ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"shared/{name} is not beside this checkout")
    return folder
