"""The notebooks of docs/ run from their first cell to their last, in a kernel of their own, and hold no outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import codegen

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, repo, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repo))
    monkeypatch.setenv("XLA_FLAGS", codegen.FLAGS)  # as here: what other tests compiled need not be compiled again
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    done = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(repo)}}).execute()
    shown = [output for cell in done.cells for output in cell.get("outputs", ())]
    told = [output["data"] for output in shown if "one execution" in output.get("data", {}).get("text/plain", "")]
    assert len(told) == 1 and "<table" in told[0]["text/html"]  # a report shows itself, as one table
    printed = "".join(output["text"] for output in shown if output.get("name") == "stdout")
    assert "False" not in printed
