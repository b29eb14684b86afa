"""Names out of a program are text: what Rich would read as markup is printed as it stands."""

import io
import json

import pytest
from rich.console import Console

from llmjax.analysis import analysis_of
from llmjax.cost.roles import RoleTable
from llmjax.cycles.device import load_device
from llmjax.hlo import parse
from llmjax.report import table
from llmjax.report.diff import diff
from llmjax.report.diff_view import print_diff
from llmjax.report.export import to_object

TEXT = """HloModule m[/bold]

ENTRY e {
  x = f32[64,64] parameter(0)
  y = f32[64,64] negate(x), metadata={op_name="jit(f)/[left]/h_0/[/x]/neg" source_file="/a/[/b]b.py" source_line=3}
  z = f32[64,64] custom-call(y), custom_call_target="[red]who[/red]", metadata={op_name="jit(f)/[/]/add"}
  ROOT w = f32[64,64] add(y, z), metadata={op_name="jit(f)/M/[/x]/add"}
}
"""
ROLES = RoleTable((("neg", "[/role]"), (".", "[left]role")))


def report(text: str):
    return analysis_of(parse(text), text=text, roles=ROLES, device=load_device("gpu:a100"))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_report_prints_names_as_they_stand(width):
    shown = table.to_text(report(TEXT), width)
    for name in ("m[/bold]", "[/x]", "[left]", "[/role]", "[left]role", "[red]who[/red]"):
        assert name in shown


def test_a_diff_prints_names_as_they_stand():
    before, after = (json.loads(json.dumps(to_object(report(t)))) for t in (TEXT, TEXT.replace("64,64", "64,32")))
    text = io.StringIO()
    print_diff(diff(before, after), Console(file=text, width=120, color_system=None))
    for name in ("m[/bold]", "[/x]", "[/role]"):
        assert name in text.getvalue()
