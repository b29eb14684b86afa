"""The benchmark's results as a table and a picture."""

import html
from typing import Any

from rich import box
from rich.table import Table

from experiments.peers.runner import ENTRIES

_COLOURS = {"llmjax": "#d1495b", "transformers": "#8d99ae", "ctranslate2": "#66a182", "llama.cpp": "#edae49"}
_BAR, _GAP, _LEFT, _WIDTH = 18, 26, 150, 560


# Headers that fold where a name of their own can be cut, so that the table stands in 80 columns.
_HEADERS = {"transformers": "trans-\nformers", "ctranslate2": "ctrans-\nlate2", "llama.cpp": "llama\n.cpp"}


def table(results: list[dict[str, Any]]) -> Table:
    """Returns a row a case: everyone's rate, the roof, how near to it llmjax is, and its ratio to the best peer (*)."""
    names = [entry.name for entry in ENTRIES if any(entry.name in result["rates"] for result in results)]
    shown = Table(title="tokens/s (start: seconds), medians", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("case", no_wrap=True, vertical="bottom")
    for header in (*(_HEADERS.get(name, name) for name in names), "roof", "llmjax/\nroof", "llmjax/\nbest*"):
        shown.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for result in results:
        rates = result["rates"]
        cells = [_cell(result, name) for name in names]
        roof = result["roof"]
        near = f"{result['near_roof']:.2f}" if result["near_roof"] else ""
        ahead = f"{result['against_peer']:.2f}x" if result["best_peer"] else ""
        shown.add_row(result["case"], *cells, f"{roof:,.0f}" if roof and rates else "", near, ahead)
    return shown


def _cell(result: dict[str, Any], name: str) -> str:
    if name in result["rates"]:
        rate = result["rates"][name]
        text = f"{1 / rate:.2f} s" if result["case"].startswith("start") else f"{rate:,.0f}"
        return f"{text}*" if name == result["best_peer"] else text
    return "failed" if name in result["failed"] else "-"


def picture(results: list[dict[str, Any]], title: str) -> str:
    """Returns an SVG: a group of bars a case, as long as their rates, with a line at the roof."""
    parts, y = [], 60
    for result in results:
        if not result["rates"]:
            continue
        # Where someone beat the roof that was measured, the longest bar is the scale, and the roof stands inside it.
        full = max(result["roof"] or 0.0, *result["rates"].values())
        parts.append(f'<text x="10" y="{y + 13}" class="case">{html.escape(result["case"])}</text>')
        top = y
        for name, rate in result["rates"].items():
            width = rate / full * _WIDTH
            label = f"{1 / rate:.2f} s" if result["case"].startswith("start") else f"{rate:,.0f}/s"
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 3}" fill="{_COLOURS[name]}"/>'
                f'<text x="{_LEFT + width + 5:.1f}" y="{y + 12}">{html.escape(name)} {label}</text>'
            )
            y += _BAR
        if result["roof"]:
            x = _LEFT + _WIDTH * result["roof"] / full
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{y}" stroke="#222" stroke-dasharray="4 3"/>'
            )
            parts.append(f'<text x="{x + 4:.1f}" y="{top - 6}">roof {result["roof"]:,.0f}/s</text>')
        y += _GAP
    style = "text{font:11px sans-serif;fill:#222}.case{font-weight:bold}.title{font-size:15px}"
    size = _LEFT + _WIDTH + 190
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{y}" viewBox="0 0 {size} {y}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="10" y="26" class="title">{html.escape(title)}</text>{"".join(parts)}</svg>\n'
    )
