"""The whole table: every method measured, beside its prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from steepest._resolve import load_target
from steepest.checks.invariances.measure import Invariance, Verdict, cell, invariance
from steepest.checks.invariances.predictions import PREDICTIONS, Contender, Prediction, contenders
from steepest.checks.invariances.transforms import TRANSFORMS


@dataclass(frozen=True)
class Row:
    """One method: what was measured, or the ``error`` that prevented it; and the prediction, if any."""

    name: str
    measured: Invariance | None
    prediction: Prediction | None
    error: str = ""

    def expected(self, transform: str) -> Verdict | None:
        """Return the predicted verdict, or None."""
        return None if self.prediction is None else self.prediction.verdict(transform)

    def surprises(self) -> list[str]:
        """Return the changes of coordinates for which measurement and prediction disagree."""
        if self.measured is None or self.prediction is None:
            return []
        return [
            name for name in self.measured.deviations if self.measured.verdict(name) != self.expected(name)
        ]

    def cell(self, transform: str) -> str:
        """Return deviation and prediction, with ``!`` where they disagree."""
        if self.measured is None or transform not in self.measured.deviations:
            return ""
        expected = self.expected(transform)
        if expected == "undefined" and transform not in self.surprises():
            return "-"
        words = [cell(self.measured.deviation(transform)), expected or ""]
        return " ".join(word for word in words if word) + ("!" if transform in self.surprises() else "")


def chosen(names: Sequence[str] = ()) -> dict[str, Contender]:
    """Return the rows of the table for these names: rows, classes (all their rows), or ``"module:Class"``.

    Raises:
        TargetError: a name leads to no optimizer.
    """
    known = contenders()
    if not names:
        return known
    rows: dict[str, Contender] = {}
    for name in names:
        cls = None if name in known else load_target(name)
        found = {
            label: row
            for label, row in known.items()
            if label == name or (cls and load_target(row.cls) is cls)
        }
        rows |= found or {cls.__name__ if cls else name: Contender(name, {})}
    return rows


def invariance_table(
    names: Iterable[str] = (),
    *,
    on_start: Callable[[str, int, int], Any] | None = None,
    arguments: dict[str, Any] | None = None,
    **options: Any,
) -> list[Row]:
    """Measure many optimizers; one that fails becomes a row with its error.

    Args:
        names: rows of the table, optimizer names or ``"module:Class"``. Default: all public methods and
            torch's SGD.
        on_start: called with a row's name, its index and the number of rows before it is measured.
        arguments: constructor arguments for all of them.
        **options: those of :func:`steepest.checks.invariance`.

    Raises:
        TargetError, TypeError, ValueError: a name or an option is wrong.

    Example:
        >>> from steepest.checks import invariance_table
        >>> [row] = invariance_table(["MuAdamSANIA"], iterations=3, models="linear")
        >>> row.surprises()
        []
    """
    rows = []
    picked = chosen(list(names))
    for i, (label, contender) in enumerate(picked.items()):
        if on_start is not None:
            on_start(label, i, len(picked))
        prediction = PREDICTIONS.get(label)
        try:
            measured = invariance(
                load_target(contender.cls),
                label=label,
                **options,
                **{**contender.kwargs, **(arguments or {})},
            )
        except (TypeError, ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            if len(picked) == 1:
                raise
            message = " ".join(str(error).split())
            rows.append(Row(label, None, prediction, f"{type(error).__name__}: {message}"))
        else:
            rows.append(Row(label, measured, prediction))
    return rows


def columns(rows: Sequence[Row]) -> list[str]:
    """Return the changes of coordinates that were measured, in order."""
    return [name for name in TRANSFORMS if any(r.measured and name in r.measured.deviations for r in rows)]


def surprises(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for every disagreement between measurement and prediction."""
    return [
        f"{row.name}, {name}: measured {cell(row.measured.deviation(name))} ({row.measured.verdict(name)}), "
        f"predicted {row.expected(name)}"
        for row in rows
        if row.measured is not None
        for name in row.surprises()
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Return the table, and the reasons of the predictions, for the documentation."""
    names = columns(rows)
    lines = ["| method | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {row.name} | " + (row.error or " | ".join(map(row.cell, names))) + " |" for row in rows]
    lines += ["", "| method | why |", "|---|---|"]
    lines += [f"| {row.name} | {row.prediction.why} |" for row in rows if row.prediction]
    return "\n".join(lines) + "\n"
