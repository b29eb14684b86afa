"""A diff as Markdown, for the comment that a CI job leaves on a change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from llmjax.report.diff import Change, Diff
from llmjax.report.diff_view import HEADS, groups, percent, signed, tell

ROWS = 10  # roles and ops that are listed


def to_markdown(found: Diff, top: int = ROWS) -> str:
    """Returns the totals, and the roles and the `top` ops that changed most, as Markdown tables."""
    before, after = found.before, found.after
    lines = [f"### Cost of {_code(after['module'])}", ""]
    lines += [f"{before['ops']:,} ops before, {after['ops']:,} after. One execution, one device.", ""]
    lines += [f"> {_plain(note)}" for note in found.missing]
    lines += [""] * bool(found.missing)
    told = {metric: tell(unit) for metric, unit in found.metrics.items()}
    rows = [
        [HEADS[m], told[m](c.before), told[m](c.after), signed(c.change, told[m]) or "none", percent(c)]
        for m, c in found.totals.items()
    ]
    lines += _table(["in all", "before", "after", "change", "%"], rows)
    roles = [line for line in found.roles if line.status != "same"][:top]
    if roles:
        lines += ["", *_changes(found, "by role", [(_plain(line.role), line.changes) for line in roles])]
    ops = groups(found)
    if ops and top:
        named = [(f"{_code(group.name)} {_plain(group.where)}", group.changes) for group in ops[:top]]
        lines += ["", *_changes(found, "ops, alike ones as one", named)]
    if len(ops) > top:
        lines += ["", f"{len(ops) - top:,} smaller changes are in diff.json."]
    return "\n".join(lines) + "\n"


def _changes(found: Diff, head: str, rows: Sequence[tuple[str, Mapping[str, Change]]]) -> Iterator[str]:
    heads = [cell for metric in found.metrics for cell in (HEADS[metric], "%")]
    body = [
        [
            name,
            *(cell for m, unit in found.metrics.items() for cell in (signed(c[m].change, tell(unit)), percent(c[m]))),
        ]
        for name, c in rows
    ]
    yield from _table([head, *heads], body)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|---|{'---:|' * (len(heads) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _plain(text: str) -> str:
    """A text of the program that formats nothing, links to nothing and calls nobody."""
    kept = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_\[\]<>|#~@!])", lambda m: f"&#{ord(m[1])};", kept)


def _code(text: str) -> str:
    kept = re.sub(r"[`|\s]+", " ", text).strip()
    return f"`{kept or 'module'}`"
