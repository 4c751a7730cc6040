"""Which records belong together: one task, at one preset, under one protocol, on one engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steepest.race.records import RunRecord

USUAL_PRESET = "cpu"
USUAL_PROTOCOL = "fair"


@dataclass(frozen=True)
class Event:
    """One competition of a report. Results of two events are never averaged, ranked or tested together.

    ``engine`` is the canonical JSON text of the engine's options, so that events can be keys.
    """

    task: str
    preset: str = USUAL_PRESET
    protocol: str = USUAL_PROTOCOL
    engine: str = field(default="{}", repr=False)

    @classmethod
    def of(cls, record: RunRecord) -> Event:
        """Return the event that a record belongs to."""
        engine = json.dumps(dict(record.engine), sort_keys=True, default=str)
        return cls(record.task, record.preset, record.protocol, engine)

    @property
    def options(self) -> Mapping[str, Any]:
        """The engine's options as a mapping."""
        return json.loads(self.engine)


def titles(events: Iterable[Event]) -> dict[Event, str]:
    """Name every event: the task, and in parentheses what is unusual or differs between its events.

    The preset is told unless all of the task's events use the usual one, the protocol and each option of the
    engine likewise; so a lone ordinary race is called by its task alone. Titles are unique.
    """
    known = list(dict.fromkeys(events))
    found: dict[Event, str] = {}
    for event in known:
        same = [e for e in known if e.task == event.task]
        words: list[str] = []
        if any(e.preset != USUAL_PRESET for e in same):
            words.append(event.preset)
        if any(e.protocol != USUAL_PROTOCOL for e in same):
            words.append(f"{event.protocol} protocol")
        twins = [e for e in same if (e.preset, e.protocol) == (event.preset, event.protocol)]
        options = [e.options for e in twins]
        for name in sorted({name for o in options for name in o}):
            if len({json.dumps(o.get(name)) for o in options}) > 1:
                value = event.options.get(name)
                words.append(f"{name} {value if isinstance(value, str) else json.dumps(value)}")
        found[event] = f"{event.task} ({', '.join(words)})" if words else event.task
    return found
