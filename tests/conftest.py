"""What every test may use."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path

from tests import codegen

# Before JAX is imported anywhere: the tests run on the CPU, whatever else is attached.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of their time is XLA compiling tiny models: it optimises no machine code, and compiles a program once in all
# processes of a run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Threads that wait for one another beside as many other tests spend more time on waiting than on tiny matrices.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="llmjax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis
import pytest

codegen.take()

# No clock decides a test: an example may take long on a busy machine.
hypothesis.settings.register_profile("llmjax", deadline=None)
hypothesis.settings.load_profile("llmjax")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what takes minutes, visibly, unless `-m slow` asks for it."""
    if "slow" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: pytest -m slow"))


def pytest_collection_finish() -> None:
    """Spares the collector what lives to the end, and many of its rounds: tracing makes objects by the million."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


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
