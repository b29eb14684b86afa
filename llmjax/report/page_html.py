"""A page -> one HTML file that needs no network: findings, charts and tables, each figure with its provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmjax.report.html import asset, plotly_js, render
from llmjax.report.page_charts import figure, kinds
from llmjax.report.page_view import grid, head_of, is_prose
from llmjax.report.provenance import PROVENANCE
from llmjax.report.units import quantity

if TYPE_CHECKING:
    from llmjax.report.page import Page, Table

_DENSE = 8  # from so many columns on a table is set closer
SCRIPTS = ("format.js", "charts.js", "plots.js")


def to_html(page: Page) -> str:
    """Returns the page as one HTML file; plotly.js is in it where the page has plots."""
    sections = [
        {
            "section": section,
            "plots": [{"plot": plot, "kinds": kinds(plot), "height": figure(plot)["height"]} for plot in section.plots],
            "tables": [_table(table) for table in section.tables],
        }
        for section in page.sections
    ]
    figures = [figure(plot) for section in page.sections for plot in section.plots]
    used = {kind for section in sections for plot in section["plots"] for kind in plot["kinds"]}
    used |= {kind for section in sections for table in section["tables"] for kind in table["kinds"]}
    return render(
        "page.html.j2",
        page=page,
        sections=sections,
        data=figures,
        plotly=plotly_js() if figures else "",
        scripts=[asset(name) for name in SCRIPTS],
        provenance={kind: meaning for kind, meaning in PROVENANCE.items() if kind in used},
    )


def _table(table: Table) -> dict[str, Any]:
    """What the template needs of a table: heads, and cells of (text, class, kind, whether it wears it)."""
    made = grid(table)
    prose = [is_prose(made, k) for k in range(len(made.columns))]
    looks = ["number" if made.is_number[k] else "" if prose[k] else "label" for k in range(len(made.columns))]
    heads = [
        {"title": head_of(column), "kind": column.kind, "look": look}
        for column, look in zip(made.columns, looks, strict=True)
    ]
    rows = [
        [
            {
                "text": (cell.value or "") if look == "" else _text(cell.value, column.unit),
                "look": look,
                "kind": cell.kind,
                "badge": bool(cell.kind) and cell.kind != column.kind,
            }
            for cell, column, look in zip(row, made.columns, looks, strict=True)
        ]
        for row in made.rows
    ]
    found = {cell["kind"] for row in rows for cell in row} | {head["kind"] for head in heads} | {made.kind}
    dense = len(heads) > _DENSE
    # Sentences beside many columns would be a word wide: they stand below their row.
    below = heads.pop()["title"] if dense and prose[-1] else ""
    told = {"title": table.title, "note": table.note, "kind": made.kind, "dense": dense, "below": below}
    return told | {"heads": heads, "rows": rows, "kinds": found - {""}}


def _text(value: Any, unit: str) -> str:
    if isinstance(value, str):
        return value
    return "–" if value is None else quantity(value, unit)
