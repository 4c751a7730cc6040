"""Which records of a folder make up its latest race."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from steepest.race.records import RaceError, RunRecord, read_records
from steepest.race.runner import Race

MANIFEST = "race.json"


def write_manifest(folder: Path, race: Race, command: str | None = None) -> None:
    """Note which records make up the latest race of a folder, and the command that asked for it.

    Raises:
        RaceError: it cannot be written; an older note is left as it was.
    """
    settings = race.settings
    manifest: dict[str, Any] = {
        "command": command,
        "tasks": list(settings.tasks),
        "protocol": settings.protocol,
        "optimizers": list(dict.fromkeys(lane.contender.name for lane in race.lanes())),
        "seeds": settings.seeds,
        "steps": settings.steps,
        "lr_grid": settings.rates,
        "engine": settings.engine.to_dict(),
        "tuned": settings.tuned,
        "trials": settings.trials,
        "keys": [record.key for record in race.relevant()],
    }
    unfinished = folder / f"{MANIFEST}.tmp"
    try:
        unfinished.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / MANIFEST)
    except OSError as error:
        raise RaceError(f"cannot write {folder / MANIFEST}: {error.strerror}") from None


def latest_race(folder: Path) -> tuple[list[RunRecord], str | None]:
    """Return the records of the latest race of a folder (all there are if it is not told) and its command.

    Raises:
        RaceError: there are none.
    """
    records = read_records(folder)
    if not records:
        raise RaceError(f"no records in {folder}; `steepest race --out {folder}` makes some")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        keys, command = manifest["keys"], manifest["command"]
    except (OSError, ValueError, KeyError):
        return records, None
    by_key = {record.key: record for record in records}
    return [by_key[key] for key in keys if key in by_key] or records, command
