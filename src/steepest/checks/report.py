"""What a run of the checks found: results, and a table a person can read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["CheckReport", "CheckResult"]

STATUSES = ("pass", "fail", "note", "skip")


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one named check.

    Attributes:
        name: the check, as ``group.detail``.
        clause: number of the contract clause it tests, 1 to 12.
        strict: whether the check is one that goes beyond what ``torch.optim`` itself promises.
        status: ``"pass"``; ``"fail"``; ``"note"``, a strict check that is not met in an ordinary run and does
            not count; ``"skip"``, not claimed by the class or not applicable, with the reason in ``message``.
        message: one or two lines: what was expected, what happened, and a hint. Empty for a pass.
        seconds: time the check took.
        details: the traceback of an exception the class raised, else empty.
    """

    name: str
    clause: int
    strict: bool
    status: str
    message: str = ""
    seconds: float = 0.0
    details: str = field(default="", repr=False)


@dataclass(frozen=True)
class CheckReport:
    """All results of one class. ``print(report)`` shows the table and explains every failure.

    Attributes:
        target: the class and the arguments it was built with.
        strict: whether strict checks count.
        results: one :class:`CheckResult` per check, in clause order.
    """

    target: str
    strict: bool
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one check passed and none failed. Notes and skips do not count."""
        return not self.failures and any(result.status == "pass" for result in self.results)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results with status ``"fail"``."""
        return tuple(result for result in self.results if result.status == "fail")

    def counts(self) -> dict[str, int]:
        """How many results have each status."""
        return {status: sum(result.status == status for result in self.results) for status in STATUSES}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for ``json.dumps``."""
        return {
            "target": self.target,
            "strict": self.strict,
            "passed": self.passed,
            "counts": self.counts(),
            "results": [asdict(result) for result in self.results],
        }

    def __str__(self) -> str:
        lines = [self._headline(), ""]
        width = max((len(result.name) for result in self.results), default=0)
        lines += [
            f"  {result.clause:>2}  {result.name:<{width}}  {_LABELS[result.status]}"
            + (f"  {first_line(result.message)}" if result.status == "skip" else "")
            for result in self.results
        ]
        for status, title in _SECTIONS:
            chosen = [result for result in self.results if result.status == status]
            if chosen:
                lines += ["", f"{title} ({len(chosen)})"]
            for result in chosen:
                lines.append(f"  {result.name} (clause {result.clause})")
                lines += [f"      {line}" for line in result.message.splitlines()]
        return "\n".join(lines)

    def _headline(self) -> str:
        counts = self.counts()
        verdict = "PASSED" if self.passed else "FAILED"
        seconds = sum(result.seconds for result in self.results)
        parts = [f"{counts['pass']} passed", f"{counts['fail']} failed"]
        if counts["note"]:
            parts.append(f"{counts['note']} strict not met (not counted)")
        if counts["skip"]:
            parts.append(f"{counts['skip']} skipped")
        mode = "strict" if self.strict else "ordinary"
        return f"{self.target}: {verdict} ({mode}): {', '.join(parts)}, {seconds:.1f} s"


def first_line(message: str) -> str:
    """The first line of a message, or an empty string."""
    return message.splitlines()[0] if message else ""


_LABELS = {"pass": "pass", "fail": "FAIL", "note": "not met", "skip": "skip"}
_SECTIONS = (
    ("fail", "Failures"),
    ("note", "Strict checks not met; they count only with strict=True"),
)
