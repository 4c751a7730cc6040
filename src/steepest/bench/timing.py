"""Steps timed in turns: every optimizer once a round, in an order that rotates from round to round."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from steepest.bench.contenders import Contender, Stepper
from steepest.bench.memory import peak_bytes, state_bytes
from steepest.bench.sets import Gradients, Parameters

FEWEST, MOST = 5, 100
"""Rounds of a panel, unless they are given."""
Say = Callable[[str], None]


@dataclass
class Row:
    """What was measured of one optimizer; times in seconds, one for each round."""

    contender: Contender
    stepper: Stepper | None = None
    params: Parameters | None = None
    first: float = math.nan
    peak: int = 0
    error: str | None = None
    times: list[float] = field(default_factory=list)

    def to_json(self, entries: int) -> dict[str, Any]:
        """Return the row as plain data: times in ms."""
        told: dict[str, Any] = {
            "name": self.contender.name,
            "library": self.contender.library,
            "method": self.contender.method,
            "cycle": self.contender.cycle,
            "note": self.contender.note,
        }
        if self.error or self.stepper is None:
            return told | {"error": self.error}
        return told | {
            "times_ms": [_short(1e3 * t) for t in self.times],
            "first_ms": _short(1e3 * self.first),
            "state_bytes_per_parameter": _short(state_bytes(self.stepper.states()) / entries),
            "peak_bytes": self.peak,
        }


def stopwatch(device: torch.device) -> Callable[[Callable[[], Any]], float]:
    """Return a function that runs another and returns its seconds, work queued on the device included."""

    def clock(work: Callable[[], Any]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return clock


def measure(
    contenders: Sequence[Contender],
    gradients: Gradients,
    seconds: float,
    rounds: int | None = None,
    say: Say = lambda line: None,
) -> tuple[list[Row], bool]:
    """Measure optimizers side by side; return their rows, and whether it was done to the end.

    Each is built, takes its first step (timed apart) and a warm-up of a whole refresh cycle, whose memory is
    recorded. Then come rounds, as many as fit into ``seconds``, at least 5 and at most 100, always in whole
    cycles. An optimizer that fails keeps its error and leaves the others alone. Ctrl-C ends the rounds;
    what was measured stays.
    """
    rows = [Row(contender) for contender in contenders]
    clock = stopwatch(gradients.device)
    cycle = math.lcm(*(c.cycle for c in contenders))
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the peers are not ours to repeat
        try:
            for row in rows:
                say(f"{row.contender.name}: first step and warm-up")
                _prepare(row, gradients, clock)
            begun = time.perf_counter()
            done = 0
            while rounds is None or done < rounds:
                if (
                    rounds is None
                    and done
                    and not _another(done, cycle, time.perf_counter() - begun, seconds)
                ):
                    break
                say(f"round {done + 1}")
                for i in range(done, done + cycle):
                    _round(rows, gradients, clock, i)
                done += cycle
        except KeyboardInterrupt:
            shortest = min((len(row.times) for row in rows if row.error is None), default=0)
            for row in rows:
                del row.times[shortest:]
            return rows, False
    return rows, True


def _another(done: int, cycle: int, spent: float, seconds: float) -> bool:
    """Whether one more cycle of rounds is wanted."""
    if done < FEWEST:
        return True
    return done + cycle <= MOST and spent * (done + cycle) / done <= seconds


def _prepare(row: Row, gradients: Gradients, clock: Callable[[Callable[[], Any]], float]) -> None:
    row.error = row.contender.obstacle(gradients.shapes)
    if row.error:
        return
    try:
        row.params = gradients.parameters(flat=row.contender.flat)
        row.stepper = row.contender.build(row.params)
        gradients.write(row.params, 0)
        row.first = clock(row.stepper.step)
        for i in range(row.contender.cycle):
            gradients.write(row.params, i + 1)
            row.peak = max(row.peak, peak_bytes(row.stepper.step, gradients.device))
    except Exception as error:
        _fail(row, error)


def _round(
    rows: list[Row], gradients: Gradients, clock: Callable[[Callable[[], Any]], float], number: int
) -> None:
    turn = number % len(rows)
    for row in rows[turn:] + rows[:turn]:
        if row.stepper is None or row.params is None:
            continue
        gradients.write(row.params, row.contender.cycle + 1 + number)
        try:
            row.times.append(clock(row.stepper.step))
        except Exception as error:
            _fail(row, error)


def _fail(row: Row, error: Exception) -> None:
    words = " ".join(str(error).split())
    row.error = f"failed: {type(error).__name__}{': ' if words else ''}{words}"[:300].rstrip(".")
    row.stepper = row.params = None


def _short(value: float) -> float:
    return float(f"{value:.4g}")
