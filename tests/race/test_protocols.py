"""What the protocols "fair" with a second stage and "paper" run, and that it does not depend on chance."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import race_toys

from steepest.race.contenders import parse_contenders
from steepest.race.fair import fair_lane
from steepest.race.lane import Lane
from steepest.race.manifest import latest_race, write_manifest
from steepest.race.records import RaceError, RecordStore, RunRecord
from steepest.race.runner import Race, run_race
from steepest.race.settings import Settings
from steepest.race.spec import RunSpec
from steepest.race.statistics import summarize
from steepest.race.tuning import RANGES, space_of


class Silent:
    def started(self, spec) -> None:
        pass

    def finished(self, record, lanes) -> None:
        assert sum(lane.finished for lane in lanes) <= sum(lane.expected for lane in lanes)


def paper(optimizers: str = "", **changes) -> Settings:
    contenders = parse_contenders(optimizers) if optimizers else []
    tasks = {"race_toys:published": race_toys.published}
    return Settings(tasks, contenders, protocol="paper", **changes)


def go(folder: Path, settings: Settings, slots: int = 2) -> tuple[Race, list[RunSpec]]:
    executor = race_toys.Inline(slots)
    with RecordStore(folder) as store:
        race = Race(settings, store.records)
        assert run_race(race, store, executor, Silent())
        write_manifest(folder, race)
    return race, executor.done


def results(race: Race) -> list[tuple]:
    return [(r.key, r.phase, r.lr, r.seed, r.final_loss, dict(r.kwargs)) for r in race.relevant()]


def test_a_papers_race_sweeps_whom_it_swept_and_runs_the_others_at_their_rate(tmp_path: Path) -> None:
    race, done = go(tmp_path, paper())
    runs = [(r.optimizer, r.phase, r.lr, r.seed) for r in race.relevant()]
    best = min((r for r in race.relevant() if r.phase == "sweep"), key=lambda r: r.final_loss).lr
    assert runs == [
        *[("AdamW", "final", 1e-2, seed) for seed in (42, 7)],
        *[("Muon", "final", 0.02, seed) for seed in (42, 7)],
        *[("ANDI", "sweep", lr, 42) for lr in (0.01, 0.03, 0.1)],
        *[("ANDI", "final", best, seed) for seed in (42, 7)],
    ]
    assert len(done) == len(runs) - 1  # the sweep's run on the first seed is a final run too
    for record in race.relevant():
        assert (record.protocol, record.steps, record.settings["batch_size"]) == ("paper", 5, 4)
        assert (record.settings["paper"], record.settings["paper_steps"]) == ("Toys, table 1", 5)
        assert (record.engine["schedule"], record.engine["warmup"]) == ("constant", 0.0)
    assert {r.aux_lr for r in race.relevant() if r.optimizer == "Muon"} == {1e-2}
    assert {r.kwargs["momentum"] for r in race.relevant() if r.optimizer == "ANDI"} == {0.8}


def test_a_copied_record_is_the_sweeps_but_for_its_phase(tmp_path: Path) -> None:
    race, _ = go(tmp_path, paper())
    best = next(lane.best for lane in race.lanes() if lane.contender.name == "ANDI")
    sweep, final = (
        next(r for r in race.relevant() if (r.optimizer, r.phase, r.lr, r.seed) == ("ANDI", phase, best, 42))
        for phase in ("sweep", "final")
    )
    assert final.key != sweep.key
    assert replace(final, key=sweep.key, phase="sweep") == sweep
    (summary,) = summarize(latest_race(tmp_path)[0]).tasks
    assert {o.name: len(o.seed_losses) for o in summary.optimizers} == {"AdamW": 2, "Muon": 2, "ANDI": 2}
    assert go(tmp_path, paper())[1] == []  # nothing is left to do, the copy included


def test_a_papers_race_may_be_shorter_and_of_fewer_optimizers(tmp_path: Path) -> None:
    race, _ = go(tmp_path, paper("ANDI", steps=3))
    assert {(r.optimizer, r.steps) for r in race.relevant()} == {("AdamW", 3), ("ANDI", 3)}


def test_an_auxiliary_rate_that_the_paper_names_is_kept(tmp_path: Path) -> None:
    published = race_toys.published
    assert published.paper is not None
    own = replace(published.paper, kwargs={"Muon": {"aux": {"lr": 0.5}}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_toys, "published", replace(published, paper=own))
        race, done = go(tmp_path, paper("Muon"))
    assert {s.aux_lr for s in done if s.name == "Muon"} == {0.5}
    assert len(race.relevant()) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: paper("SGD"), "published's paper did not run 'SGD'; it ran AdamW, Muon, ANDI"),
        (lambda: paper(rates=(0.1,)), "leave out --lr-grid"),
        (lambda: paper(tuned=("momentum",), trials=2), "leave out --tune"),
        (lambda: paper(engine=replace(paper().engine, schedule="linear")), "leave out --schedule"),
        (
            lambda: replace(paper(), tasks={"t": race_toys.task}),
            "no paper's settings are known for the task 'toy'",
        ),
        (lambda: replace(paper(), protocol="papers"), "got 'papers'; did you mean 'paper'?"),
        (lambda: fair("SGD", ("beta",), 2), "--tune must be of momentum, betas, weight_decay, got 'beta'"),
        (lambda: fair("SGD", ("momentum",), 0), "belong together"),
        (lambda: fair("SGD", (), 3), "belong together"),
    ],
)
def test_what_a_race_cannot_do_is_refused_before_it_starts(make: Callable, message: str) -> None:
    with pytest.raises(RaceError, match=message.replace("?", r"\?")):
        make()


def fair(optimizers: str, tuned: tuple[str, ...], trials: int, **changes) -> Settings:
    given = {"tasks": {"race_toys:task": race_toys.task}, "seeds": 2, **changes}
    return Settings(contenders=parse_contenders(optimizers), tuned=tuned, trials=trials, **given)


def pretend(spec: RunSpec, loss: float) -> RunRecord:
    """A record of a run that was not done."""
    return replace(RECORD, key=spec.key, lr=spec.lr, seed=spec.seed, phase=spec.phase, final_loss=loss)


RECORD = RunRecord("", "toy", "1", "SGD", "", {}, 0.0, None, 0, "sweep", 1, "ok")


def follow(settings: Settings, name: str, loss: Callable[[RunSpec], float]) -> tuple[Lane, list[RunSpec]]:
    """Do what a lane wants, pretending, until it is done."""
    contender = next(c for c in settings.contenders if c.name == name)
    records: dict[str, RunRecord] = {}
    while True:
        lane = fair_lane(settings, "race_toys:task", contender, 1e-3, records)
        missing = [s for s in lane.specs if s.key not in records]
        if not missing:
            return lane, lane.specs
        records |= {s.key: pretend(s, loss(s)) for s in missing}


def momentum_of(spec: RunSpec) -> float:
    return float(spec.contender.partition("momentum=")[2].split(",")[0].rstrip(")"))


def bowl(spec: RunSpec) -> float:
    """Best at lr 0.1 and momentum 0.98; sweeps are at momentum 0.9."""
    lr, slow = math.log10(spec.lr), math.log10(1 - momentum_of(spec))
    return (lr + 1) ** 2 + (slow + 1.7) ** 2


def test_the_second_stage_finds_what_the_learning_rate_alone_does_not() -> None:
    settings = fair("SGD", ("momentum",), 24)
    lane, specs = follow(settings, "SGD", bowl)
    assert Counter(s.phase for s in specs) == {"sweep": 5, "tune": 24, "final": 2}
    assert len({s.key for s in specs}) == len(specs)
    final = [s for s in specs if s.phase == "final"]
    assert {s.seed for s in final} == {1, 2}
    assert bowl(final[0]) == min(map(bowl, specs)) < 0.3 * min(bowl(s) for s in specs if s.phase == "sweep")
    assert lane.best == 0.1
    assert lane.expected == lane.finished == len(specs)
    assert {s.seed for s in specs if s.phase == "tune"} == {0}
    assert all(s.stops_if_hopeless == (s.phase != "final") for s in specs)


def test_trials_stay_in_their_ranges_and_are_numbers_a_person_would_write() -> None:
    _, specs = follow(fair("SGD", ("momentum",), 24), "SGD", bowl)
    low, high = RANGES["1 - momentum"]
    for spec in specs:
        if spec.phase == "tune":
            assert low * 0.99 <= 1 - momentum_of(spec) <= high * 1.01
            assert 0.0316 * 0.99 <= spec.lr <= 0.316 * 1.01
            assert spec.lr == float(f"{spec.lr:.3g}")


def test_if_no_trial_is_better_the_first_stages_result_runs() -> None:
    _, specs = follow(fair("SGD", ("momentum",), 8), "SGD", lambda s: (s.phase == "tune") + bowl(s))
    assert {(s.lr, momentum_of(s)) for s in specs if s.phase == "final"} == {(0.1, 0.9)}
    _, specs = follow(
        fair("SGD", ("momentum",), 8), "SGD", lambda s: math.inf if s.phase == "tune" else bowl(s)
    )
    assert {(s.lr, momentum_of(s)) for s in specs if s.phase == "final"} == {(0.1, 0.9)}


def test_every_optimizer_has_the_same_trials_of_the_arguments_it_has() -> None:
    settings = fair("Muon,SGD,torch.optim:Rprop", ("momentum", "betas", "weight_decay"), 6)
    spaces = {}
    for contender in settings.contenders:
        _, specs = follow(settings, contender.name, lambda s: s.lr)
        assert sum(s.phase == "tune" for s in specs) == 6
        spaces[contender.name] = [name for name, *_ in space_of(contender, settings.tuned, 0.1).ranges]
    assert spaces == {
        "AdamW": ["lr", "1 - betas[0]", "1 - betas[1]", "weight_decay"],
        "Muon": ["lr", "1 - momentum", "weight_decay"],
        "SGD": ["lr", "1 - momentum", "weight_decay"],
        "Rprop": ["lr"],
    }


def test_several_arguments_reach_the_optimizer(tmp_path: Path) -> None:
    race, done = go(tmp_path, fair("AdamW", ("betas", "weight_decay"), 3, steps=3))
    trials = [s for s in done if s.phase == "tune"]
    records = [race.records[s.key] for s in trials]
    assert all(r.status == "ok" for r in records)
    assert len({(r.kwargs["betas"], r.kwargs["weight_decay"]) for r in records}) == 3
    finals = {(r.lr, str(dict(r.kwargs))) for r in race.relevant() if r.phase == "final"}
    assert len(finals) == 1


def test_a_tuned_race_ends_the_same_with_any_workers_and_after_any_interruption(tmp_path: Path) -> None:
    settings = fair("SGD", ("momentum",), 6, steps=3)
    whole, _ = go(tmp_path / "whole", settings, slots=1)
    wide, _ = go(tmp_path / "wide", settings, slots=5)
    assert results(wide) == results(whole)
    lines = (tmp_path / "whole" / "records.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (8, len(lines) - 5):
        folder = tmp_path / str(kept)
        folder.mkdir()
        (folder / "records.jsonl").write_bytes(b"".join(lines[:kept]))
        again, done = go(folder, settings, slots=3)
        assert len(done) == len(lines) - kept
        assert results(again) == results(whole)


def test_without_optuna_one_line_tells_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RaceError, match=r"--tune needs optuna: pip install 'steepest\[tune\]'"):
        fair("SGD", ("momentum",), 2)


def test_an_argument_that_nobody_has_is_refused() -> None:
    with pytest.raises(RaceError, match="--tune momentum: no optimizer of this race has this argument"):
        Settings({}, parse_contenders("AdamW"), tuned=("momentum",), trials=1)
