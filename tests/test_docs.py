"""The Python of the documentation runs as it stands there, and links lead somewhere."""

import re
from pathlib import Path

import pytest

import llmjax

REPO = Path(__file__).parent.parent
PAGES = sorted([*(REPO / "docs").glob("*.md"), *REPO.glob("README*.md")])


def test_your_program(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPO / "docs" / "your-program.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(block, names)
    shown = capsys.readouterr().out
    assert "274 MFLOP" in shown and re.search(r"^mix 134217728 ", shown, re.MULTILINE)
    assert (tmp_path / "attend.html").stat().st_size > 1_000_000


def test_a_page_of_your_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(
        r"```python\n(from pathlib.*?)```", (REPO / "docs" / "reports.md").read_text("utf-8"), re.DOTALL
    )
    exec(block, {})
    assert "46.7 ms" in (tmp_path / "page.html").read_text("utf-8")
    assert '"schema": "llmjax.page/1"' in (tmp_path / "page.json").read_text("utf-8")


def test_what_your_program_says_of_options():
    names: dict = {}
    text = (REPO / "docs" / "your-program.md").read_text("utf-8")
    exec(re.findall(r"```python\n(.*?)print", text, re.DOTALL)[0], names)
    array, attend = names["array"], names["attend"]
    (roles,) = re.findall(r"`roles=(\[.*?\])`", text)
    report = llmjax.analyze(attend, array, array, array, roles=eval(roles))
    assert {row.key for row in report.by("role")} >= {"attention", "values"}
    timed = llmjax.analyze(attend, array, array, array, measure=True)
    assert timed.measured and timed.measured.wall.median > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads], link
