"""Where runs are done. Runs are independent: an executor takes specs and gives back records, in any order."""

from __future__ import annotations

from typing import Protocol

from steepest.race.records import RunRecord
from steepest.race.spec import RunSpec


class Executor(Protocol):
    """What a race asks of the place where its runs are done."""

    @property
    def slots(self) -> int:
        """How many runs may be under way now."""
        ...

    def submit(self, spec: RunSpec) -> None:
        """Start a run; called only while fewer than `slots` are under way."""
        ...

    def next_record(self) -> RunRecord:
        """Wait for the next run to end, in whatever way, and return its record."""
        ...

    def close(self) -> None:
        """Stop; runs under way are given up."""
        ...
