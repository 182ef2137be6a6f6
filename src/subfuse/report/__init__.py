"""The report of a run: one self-contained HTML file."""

from subfuse.report.document import write_report

__all__ = ["write_report"]
