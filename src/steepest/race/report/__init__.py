"""The race's report: one self-contained HTML file, and one picture for a README."""

from steepest.race.report.page import write_report
from steepest.race.report.picture import write_curves_png

__all__ = ["write_curves_png", "write_report"]
