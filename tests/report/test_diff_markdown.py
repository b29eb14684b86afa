"""The diff that a CI job comments on a change."""

import re

from llmjax.report.diff import diff
from llmjax.report.diff_markdown import to_markdown
from tests.conftest import ROOT
from tests.report.costs import HOSTILE, cost_of, hostile, text_of, timed


def columns(text):
    """The number of cells of each table's rows."""
    return [{line.count("|") for line in block.splitlines()} for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]


def test_totals_roles_and_ops_are_tables():
    before, after = timed(cost_of(text_of())), timed(cost_of(text_of("cpu_0.10.2_block_f32.hlo")))
    text = to_markdown(diff(before, after), top=3)
    assert all(len(rows) == 1 for rows in columns(text)) and len(columns(text)) == 3
    assert re.search(r"^\| FLOPs \| .* \| .* \|", text, re.M) and "smaller changes are in diff.json" in text


def test_a_program_that_did_not_change_has_totals_alone():
    cost = cost_of(text_of())
    text = to_markdown(diff(cost, cost))
    assert len(columns(text)) == 1 and text.count("none") == len(diff(cost, cost).totals)


def test_what_a_program_calls_its_parts_is_text():
    text = to_markdown(diff(cost_of(text_of()), hostile()))
    assert HOSTILE not in re.sub(r"`[^`]*`", "", text) and "<script" not in re.sub(r"`[^`]*`", "", text)
    assert all(len(rows) == 1 for rows in columns(text))


def test_the_workflow_runs_what_is_here():
    text = (ROOT / ".github" / "workflows" / "cost-diff.yml").read_text("utf-8")
    for path in re.findall(r"--config=(\S+)", text):
        assert (ROOT / path).is_file()
    for key in re.findall(r"--config\.(\w+)=", text):
        assert re.search(rf"^    c\.{key} =", (ROOT / "configs/diff.py").read_text("utf-8"), re.M), key
    assert "diff.md" in (ROOT / "experiments/diff.py").read_text("utf-8")
