"""What `llmjax.analyze` returns: an analysis that shows itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from llmjax.analysis import Analysis
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.report import explorer, export, table
from llmjax.report.answers import explain
from llmjax.verdict import op_verdict

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class CostReport(Analysis):
    """An analysis for a person: printed it is one screen, in a notebook a table."""

    @classmethod
    def of(cls, analysis: Analysis) -> CostReport:
        """Returns the report of an analysis."""
        return cls(**{field.name: getattr(analysis, field.name) for field in fields(analysis)})

    def to_json(self) -> str:
        """The whole report as JSON; docs/cost-json.md has its schema."""
        return export.to_json(self)

    def to_csv(self) -> str:
        """One line an op."""
        return export.to_csv(self)

    def explain(self, op: str) -> str:
        """What an op is, what bounds it and what would change it: of the op of that name, or the largest whose module
        path or role holds it. Raises UserError where there is none."""
        return "\n".join(explain(op_verdict(self, op)))

    def to_html(self) -> str:
        """The page that configs/cost.py writes: one HTML file that needs no network (docs/reports.md)."""
        from llmjax.report import html

        return html.to_html([html.program_of(self, self.name or "program")])

    def save_html(self, path: str | Path) -> Path:
        """Writes `to_html` to a file and returns its path. Raises UserError where it cannot be written."""
        found = Path(path).expanduser()
        try:
            atomic_write(found, self.to_html())
        except OSError as error:
            raise UserError(f"save_html({str(path)!r}) cannot write there: {error.strerror or error}.") from error
        return found

    def save_model_explorer(self, folder: str | Path) -> tuple[Path, ...]:
        """Writes graph.json and an overlay a file (seconds.json, flops.json, bound.json, ...) for Model Explorer
        (docs/reports.md); returns their paths, the graph's first. Raises UserError where they cannot be written."""
        texts = {"graph": explorer.to_graph(self), **explorer.to_node_data(self)}
        paths = {name: Path(folder).expanduser() / f"{name}.json" for name in texts}
        try:
            for name, path in paths.items():
                atomic_write(path, texts[name])
        except OSError as error:
            told = error.strerror or error
            raise UserError(f"save_model_explorer({str(folder)!r}) cannot write there: {told}.") from error
        return tuple(paths.values())

    def to_pandas(self) -> pandas.DataFrame:
        """One row an op, with the columns of `to_csv`. Raises UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise UserError("to_pandas() needs pandas, which is not installed: pip install pandas.") from error
        return pandas.DataFrame.from_records(export.records(self))

    def __repr__(self) -> str:
        return table.to_text(self)

    def _repr_html_(self) -> str:
        return table.to_html(self)
