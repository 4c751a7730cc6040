"""The protocol "paper": a task's source paper repeated with its own settings.

Steps, batch size, seeds and schedule are the paper's. Optimizers that it ran at one learning rate run at
that; those whose rate it chose are swept over its rates on its first seed, and the one with the lowest
validation loss at the end runs on all seeds. No rate is added to a paper's, and no run is stopped early.
"""

from __future__ import annotations

from dataclasses import replace

from steepest.race.contenders import Contender
from steepest.race.lane import Lane, Records, best_rate, follow_search
from steepest.race.records import run_key
from steepest.race.search import Grid
from steepest.race.settings import Settings
from steepest.race.spec import RunSpec, make_spec


def paper_lane(
    settings: Settings, text: str, contender: Contender, aux_lr: float | None, records: Records
) -> Lane:
    """Return what one optimizer is to run on the task of a text; the arguments are those of `fair_lane`."""
    task = settings.tasks[text]
    paper = task.paper
    assert paper is not None, "Settings has refused the task"
    rates, steps, seeds = paper.rates[contender.name], settings.steps_of(task), paper.seeds
    swept = len(rates) > 1
    aux_lr = (contender.kwargs.get("aux") or {}).get("lr", aux_lr)
    hybrid = contender.is_hybrid()
    if hybrid and aux_lr is None:
        expected = len(seeds) + (len(rates) if swept else 0)
        return Lane(task, contender, steps, [], expected, note="waits for AdamW")

    def spec(lr: float, seed: int, phase: str) -> RunSpec:
        return make_spec(
            text,
            task,
            contender,
            lr=lr,
            aux_lr=aux_lr if hybrid else None,
            seed=seed,
            phase=phase,
            steps=steps,
            batch_size=paper.batch_size,
            engine=replace(settings.engine, schedule=paper.schedule, warmup=paper.warmup),
            protocol="paper",
        )

    specs: list[RunSpec] = []
    best, done = rates[0], True
    if swept:
        grid = replace(Grid.explicit(rates), extensions=0)
        specs, state, losses = follow_search(grid, lambda rate: spec(rate, seeds[0], "sweep"), records)
        best, done = best_rate(losses), state.done
    if done and best is not None:
        finals = [spec(best, seed, "final") for seed in seeds]
        if swept:
            finals[0] = _again(finals[0])
        specs = [*specs, *finals]
    return Lane(
        task,
        contender,
        steps,
        specs,
        expected=len(specs) + (0 if done else len(seeds)),
        finished=sum(s.key in records for s in specs),
        best=best,
        searched=done,
        note="no rate worked" if done and best is None else "",
    )


def _again(spec: RunSpec) -> RunSpec:
    """The run of the sweep on the first seed is also the final one there: its record is copied."""
    return replace(spec, key=run_key(again=spec.key, phase=spec.phase), same_as=spec.key)
