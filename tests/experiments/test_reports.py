"""The files that experiments write for people: what stands in the folder, and what does not."""

import json

import pytest

import llmjax
from experiments._reports import write_views
from llmjax.analysis import analysis_of
from llmjax.cycles.device import load_device
from llmjax.errors import UserError
from llmjax.hlo.parser import parse
from tests.report.costs import text_of

REPORT = llmjax.analyze_hlo(text_of())


TIMED = analysis_of(parse(text_of()), text=text_of(), device=load_device("gpu:h100"))


def test_a_trace_is_there_exactly_when_times_are(tmp_path):
    assert write_views(tmp_path, [("x", "", TIMED)], "") == ["cost.html", "trace.json"]
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert write_views(tmp_path, [("x", "", REPORT)], "") == ["cost.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cost.html"]


def test_the_page_bears_its_title(tmp_path):
    write_views(tmp_path, [("a", "the first", REPORT), ("b", "the second", REPORT)], "both")
    page = (tmp_path / "cost.html").read_text("utf-8")
    assert "<h1>both</h1>" in page and "<b>the first</b>" in page and "<b>the second</b>" in page


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_views(tmp_path / "file", [("x", "", REPORT)], "")
