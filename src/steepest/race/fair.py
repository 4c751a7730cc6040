"""The protocol "fair": the same budget for everyone.

Search each optimizer's learning rate on the tuning seed (`steepest.race.search`), judged by the final
validation loss; if asked for, search further arguments with it (`steepest.race.tuning`); then run the best
on further seeds. The seeds are paired: the same seed means the same initialisation and the same batches for
every optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from steepest.race.contenders import Contender
from steepest.race.lane import Lane, Records, best_rate, follow_search
from steepest.race.settings import Settings
from steepest.race.spec import RunSpec, make_spec
from steepest.race.tuning import WAVE, next_wave, space_of

TUNING_SEED = 0


def fair_lane(
    settings: Settings, text: str, contender: Contender, aux_lr: float | None, records: Records
) -> Lane:
    """Return what one optimizer is to run on the task of a text, given what is recorded.

    Args:
        settings: of the race.
        text: a key of ``settings.tasks``.
        contender: the optimizer.
        aux_lr: what hybrids take for their auxiliary AdamW; None as long as it is not known.
        records: by key.
    """
    task = settings.tasks[text]
    grid, steps = settings.grid(contender), settings.steps_of(task)
    to_come = settings.trials + settings.seeds
    hybrid = contender.is_hybrid()
    if hybrid and aux_lr is None:
        return Lane(task, contender, steps, [], len(grid.points) + to_come, note="waits for AdamW")

    def spec(entrant: Contender, lr: float, seed: int, phase: str) -> RunSpec:
        return make_spec(
            text,
            task,
            entrant,
            lr=lr,
            aux_lr=aux_lr if hybrid else None,
            seed=seed,
            phase=phase,
            steps=steps,
            engine=settings.engine,
            stops_if_hopeless=settings.stops_hopeless and phase != "final",
        )

    specs, state, losses = follow_search(
        grid, lambda rate: spec(contender, rate, TUNING_SEED, "sweep"), records
    )
    best, note = best_rate(losses), ""
    if state.done and best is None:
        note, to_come = _nothing_worked(specs, records), 0
    elif state.done and best is not None:
        note = "best rate on the edge of its grid" if state.on_edge else ""

        def trial(entrant: Contender, lr: float) -> RunSpec:
            return spec(entrant, lr, TUNING_SEED, "tune")

        trials, winner = _tune(settings, contender, best, losses[best], trial, records)
        specs += trials
        to_come -= len(trials)
        if winner is not None:
            specs += [spec(*winner, TUNING_SEED + 1 + i, "final") for i in range(settings.seeds)]
            to_come = 0
    return Lane(
        task,
        contender,
        steps,
        specs,
        expected=len(specs) + to_come,
        finished=sum(s.key in records for s in specs),
        best=best,
        searched=state.done,
        note=note,
    )


def _tune(
    settings: Settings,
    contender: Contender,
    lr: float,
    loss: float,
    trial: Callable[[Contender, float], RunSpec],
    records: Records,
) -> tuple[list[RunSpec], tuple[Contender, float] | None]:
    """Follow the second stage through the records.

    Returns:
        The trials it wants so far and, once all are recorded, what is best, the first stage's included.
    """
    space = space_of(contender, settings.tuned, lr)
    start = space.start(contender, lr) if settings.trials else None
    specs: list[RunSpec] = []
    losses: list[float] = []
    entrants: list[tuple[Contender, float]] = []
    while len(specs) < settings.trials:
        size = min(WAVE, settings.trials - len(specs))
        for point in next_wave(space, tuple((start or {}).items()), loss, tuple(losses), size):
            rate, kwargs = space.settings(point, contender)
            entrants.append((replace(contender, kwargs=kwargs), rate))
            specs.append(trial(*entrants[-1]))
        if any(s.key not in records for s in specs):
            return specs, None
        losses = [records[s.key].final_loss for s in specs]
    ranked = [(loss, (contender, lr)), *zip(losses, entrants, strict=True)]
    return specs, min(ranked, key=lambda item: item[0])[1]


def _nothing_worked(specs: list[RunSpec], records: Records) -> str:
    stopped = any(records[s.key].status == "stopped" for s in specs if s.key in records)
    return "no rate worked" + ("; --no-early-stop runs hopeless ones to their end" if stopped else "")
