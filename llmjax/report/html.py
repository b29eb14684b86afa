"""cost.json (and the HLO text) of one or several programs -> one HTML file that needs no network."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from llmjax.analysis import Analysis
from llmjax.report.answers import answers
from llmjax.report.export import to_object
from llmjax.report.headlines import device_rows, headlines
from llmjax.report.html_ops import payload
from llmjax.report.provenance import PROVENANCE
from llmjax.report.remarks import Json, notes, warnings
from llmjax.report.units import percent, quantity
from llmjax.report.units import seconds as duration

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("format.js", "table.js", "detail.js", "charts.js", "page.js")


TABS = 20  # of a page: of many modules the largest have one


@dataclass(frozen=True)
class Program:
    """A program of the report: `cost` is its cost.json, `text` its HLO ("" = not at hand); `label` names its tab, and
    `title` says in words what it is ("" = only its module's name is known)."""

    label: str
    cost: Json
    text: str = field(default="", repr=False)
    title: str = ""


def program_of(report: Analysis, label: str, title: str = "") -> Program:
    """Returns an analysis as a program of a page."""
    return Program(label, to_object(report), report.text, title)


def to_html(programs: Sequence[Program], title: str = "") -> str:
    """Returns the report as one HTML page, a tab a program; `title` defaults to the first program's.

    Whatever a program does not say (times, a device) the page names as missing; nothing is made up.
    """
    views = [_view(program) for program in programs]
    data = [payload(program.cost, program.text) for program in programs]
    return render(
        "report.html.j2",
        title=title or programs[0].title or f"{views[0]['module']} on {views[0]['backend']}",
        programs=views,
        data=data,
        plotly=plotly_js(),
        scripts=[asset(name) for name in SCRIPTS],
        provenance=_used(views),
    )


def render(template: str, **values: Any) -> str:
    """Renders a template of the assets folder; everything that is not marked safe is escaped."""
    return _environment().get_template(template).render(css=asset("report.css"), **values)


def script_json(value: Any) -> Markup:
    """Returns `value` as JSON that stands in a <script> element, whatever its strings hold."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def plotly_js() -> Markup:
    """Returns the text of plotly.js, as the plotly package carries it."""
    return Markup((importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8"))


def _view(program: Program) -> dict[str, Any]:
    cost, device = program.cost, program.cost.get("device")
    target = cost.get("target")
    return {
        "label": program.label,
        "title": program.title,
        "module": cost["module"] or "module",
        "backend": str(target) if target else cost["backend"] or "an unknown backend",
        "chip": (device or {}).get("title", ""),
        "answers": answers(cost),
        "headlines": headlines(cost),
        "warnings": warnings(cost),
        "notes": notes(cost),
        "device": device_rows(device),
        "collectives": [_exchange(row) for row in cost.get("collectives", ())],
        "mesh": " x ".join(f"{axis} {size}" for axis, size in cost.get("mesh", {}).items()),
        "ops": len(cost["ops"]),
        "memory": _memory(cost.get("memory"), device),
        "has_text": bool(program.text),
    }


def _memory(memory: Json | None, device: Json | None) -> dict[str, Any] | None:
    """The rows of the section on memory, and what they are of; None where the dump says nothing."""
    if not memory:
        return None
    kinds = ", ".join(f"{quantity(size, 'B')} {kind}" for kind, size in memory["by_kind"].items() if size)
    room = (device or {}).get("memory") or []
    of = f" of {quantity(room[-1]['capacity']['value'], 'B')}" if room else ""
    peak = f"at most {quantity(memory['peak'], 'B')} held at once" + (
        f", at {memory['peak_op']}" if memory["peak_op"] else ""
    )
    rows = [
        (row["name"], quantity(row["bytes"], "B"), percent(row["bytes"], memory["peak"])) for row in memory["at_peak"]
    ]
    return {"told": f"{quantity(memory['reserved'], 'B')}{of} reserved ({kinds}); {peak}.", "rows": rows}


def _exchange(row: Json) -> dict[str, str]:
    """A row of the table of collectives, as it is shown."""
    times = {name: "–" if row.get(name) is None else duration(row[name]) for name in ("seconds", "measured")}
    return {
        **{name: str(row[name]) for name in ("opcode", "axes", "most_for")},
        "links": row.get("links") or "–",
        **{name: f"{row[name]:,}" for name in ("runs", "beside")},
        "bytes": quantity(row["bytes"], "B"),
        **times,
    }


def _used(views: list[dict[str, Any]]) -> dict[str, str]:
    """The kinds of figures that the page shows, with their meanings."""
    kinds = {h.kind for view in views for h in view["headlines"]} | {row[2] for view in views for row in view["device"]}
    return {kind: meaning for kind, meaning in PROVENANCE.items() if kind in kinds}


def asset(name: str) -> Markup:
    return Markup((ASSETS / name).read_text("utf-8"))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = script_json
    return environment
