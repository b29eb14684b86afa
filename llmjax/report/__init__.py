"""Rows -> something to look at: tables, JSON, CSV, HTML pages, traces, diffs. No JAX import."""

from llmjax.report.cost import CostReport
from llmjax.report.table import modules_table, print_report

__all__ = ["CostReport", "modules_table", "print_report"]
