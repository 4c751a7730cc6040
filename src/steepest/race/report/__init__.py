"""The race's report: pages of HTML that need nothing else, tables, and pictures."""

from steepest.race.report.picture import write_curves_png
from steepest.race.report.settings import Origin
from steepest.race.report.writing import write_report

__all__ = ["Origin", "write_curves_png", "write_report"]
