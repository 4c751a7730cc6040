from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import race_toys

from steepest.race.contenders import parse_contenders
from steepest.race.manifest import latest_race, write_manifest
from steepest.race.planning import plan
from steepest.race.records import RaceError, RecordStore, RunRecord
from steepest.race.runner import Race, run_race
from steepest.race.settings import Settings
from steepest.race.statistics import summarize, table_rows


class Silent:
    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def started(self, spec) -> None:
        pass

    def finished(self, record, lanes) -> None:
        self.counts.append((sum(lane.finished for lane in lanes), sum(lane.expected for lane in lanes)))


def settings(optimizers: str, **changes) -> Settings:
    given = {
        "tasks": {"race_toys:task": race_toys.task},
        "contenders": parse_contenders(optimizers),
        "seeds": 2,
        **changes,
    }
    return Settings(**given)


def go(folder: Path, asked: Settings, slots: int = 2, deadline: float = float("inf")):
    """Race in this process; return the race, the runs done now, and whether it is complete."""
    executor, listener = race_toys.Inline(slots), Silent()
    with RecordStore(folder) as store:
        race = Race(asked, store.records)
        complete = run_race(race, store, executor, listener, deadline)
        write_manifest(folder, race)
    return race, executor.done, complete, listener.counts


def results(race: Race) -> list[tuple]:
    return [(r.key, r.status, r.final_loss, r.train_curve) for r in race.relevant()]


def table(records: list[RunRecord]) -> list[dict[str, str]]:
    """The ranked table without what a clock measured."""
    return [{k: v for k, v in row.items() if k != "step ms"} for row in table_rows(summarize(records))]


def test_a_race_sweeps_everyone_alike_and_finishes_on_paired_seeds(tmp_path: Path) -> None:
    race, done, complete, counts = go(tmp_path, settings("Muon,SGD"))
    assert complete
    assert len({spec.key for spec in done}) == len(done)
    lanes = race.lanes()
    assert [lane.contender.name for lane in lanes] == ["AdamW", "Muon", "SGD"]
    for lane in lanes:
        runs = [race.records[spec.key] for spec in lane.specs]
        sweep = [r for r in runs if r.phase == "sweep"]
        final = [r for r in runs if r.phase == "final"]
        assert len(sweep) >= 5
        assert {r.seed for r in sweep} == {0}
        assert [r.seed for r in final] == [1, 2]
        assert {r.lr for r in final} == {lane.best} == {min(sweep, key=lambda r: r.final_loss).lr}
    done_counts, totals = zip(*counts, strict=True)
    assert list(done_counts) == list(range(1, len(done) + 1))
    assert totals[-1] == len(done)


def test_a_hybrids_auxiliary_rate_is_the_references_best(tmp_path: Path) -> None:
    race, done, _, _ = go(tmp_path, settings("Muon"))
    best = race.lanes()[0].best
    assert {spec.aux_lr for spec in done if spec.name == "Muon"} == {best}
    assert {spec.aux_lr for spec in done if spec.name == "AdamW"} == {None}
    assert [spec.name for spec in done[:5]] == ["AdamW"] * 5


def test_a_race_cut_short_anywhere_ends_in_the_same_table_and_repeats_nothing(tmp_path: Path) -> None:
    asked = settings("Muon,SGD")
    whole, all_runs, _, _ = go(tmp_path / "whole", asked)
    lines = (tmp_path / "whole" / "records.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (1, 7, len(lines) - 1):
        folder = tmp_path / str(kept)
        folder.mkdir()
        (folder / "records.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:30])
        resumed, runs, complete, _ = go(folder, asked, slots=1)
        assert complete
        assert len(runs) == len(all_runs) - kept
        assert results(resumed) == results(whole)
        assert table(latest_race(folder)[0]) == table(whole.relevant())


def test_adding_an_optimizer_runs_it_alone(tmp_path: Path) -> None:
    go(tmp_path, settings("SGD"))
    race, done, _, _ = go(tmp_path, settings("SGD,ANDI"))
    assert {spec.name for spec in done} == {"ANDI"}
    assert {r.optimizer for r in race.relevant()} == {"AdamW", "SGD", "ANDI"}
    _, done, complete, _ = go(tmp_path, settings("SGD,ANDI"))
    assert (done, complete) == ([], True)
    _, done, _, _ = go(tmp_path, settings("SGD,ANDI", seeds=3))
    assert {(spec.phase, spec.seed) for spec in done} == {("final", 3)}


def test_the_report_of_a_folder_is_of_its_latest_race(tmp_path: Path) -> None:
    go(tmp_path, settings("SGD"))
    go(tmp_path, settings("ANDI", steps=4))
    assert {(r.optimizer, r.steps) for r in latest_race(tmp_path)[0]} == {("AdamW", 4), ("ANDI", 4)}
    with pytest.raises(RaceError, match="no records in"):
        latest_race(tmp_path / "elsewhere")


def test_a_class_that_raises_costs_its_own_runs_only(tmp_path: Path) -> None:
    race, _, complete, _ = go(tmp_path, settings("race_toys:RaisesInStep,race_toys:RaisesInInit,SGD"))
    assert complete
    by_name = {lane.contender.name: lane for lane in race.lanes()}
    for name in ("RaisesInStep", "RaisesInInit"):
        assert by_name[name].note == "no rate worked"
        records = [race.records[spec.key] for spec in by_name[name].specs]
        assert [r.status for r in records] == ["failed"] * 5  # no extension, no final runs
    assert by_name["SGD"].best is not None
    assert {row["optimizer"] for row in table(race.relevant())} == set(by_name)


def test_a_reference_that_never_works_leaves_hybrids_its_starting_rate(tmp_path: Path) -> None:
    asked = settings("Muon", rates=(1e-3,))
    with RecordStore(tmp_path) as store:
        first = Race(asked, store.records).open_runs()[0]
        lost = race_toys.train(first)
        store.append(replace(lost, status="failed", final_loss=float("inf")))
    race, done, _, _ = go(tmp_path, asked)
    assert {spec.aux_lr for spec in done if spec.name == "Muon"} == {asked.contenders[0].start_lr}
    assert race.lanes()[0].note == "no rate worked"


def test_after_the_deadline_nothing_starts_and_what_runs_is_kept(tmp_path: Path) -> None:
    _, done, complete, _ = go(tmp_path, settings("SGD"), deadline=time.monotonic())
    assert (done, complete) == ([], False)

    class Slow(race_toys.Inline):
        def next_record(self):
            record = super().next_record()
            time.sleep(0.3)
            return record

    with RecordStore(tmp_path) as store:
        race = Race(settings("SGD"), store.records)
        assert not run_race(race, store, Slow(3), Silent(), time.monotonic() + 0.2)
        assert len(store.records) == 3


def test_the_plan_counts_what_is_left_and_prices_it(tmp_path: Path) -> None:
    asked = settings("SGD,Muon")
    costs = plan(Race(asked, {}))
    assert [(c.lane.contender.name, c.runs, c.steps, c.measured) for c in costs] == [
        ("AdamW", 7, 42, False),
        ("SGD", 7, 42, False),
        ("Muon", 7, 42, False),
    ]
    assert costs[0].seconds == pytest.approx(42 * 1e-3)
    race, _, _, _ = go(tmp_path, asked)
    after = plan(race)
    assert [(c.runs, c.seconds, c.measured) for c in after] == [(0, 0.0, True)] * 3


def test_names_that_a_race_cannot_tell_apart_are_one_contender() -> None:
    assert len(settings("AdamW,adamw,torch.optim:AdamW").contenders) == 1


def test_a_task_moves_everyones_grid_alike() -> None:
    task = replace(race_toys.task, lr_scale=0.01)
    usual, moved = (settings("Muon,SGD", tasks={"race_toys:task": t}) for t in (race_toys.task, task))
    for a, b in zip(usual.contenders_of(race_toys.task), moved.contenders_of(task), strict=True):
        grid = [0.01 * rate for rate in usual.grid(a).points]
        assert moved.grid(b).points == pytest.approx(grid, rel=1e-9)
        assert (a.text, a.kwargs) == (b.text, b.kwargs)
    with pytest.raises(RaceError, match="lr_scale must be a positive finite number, got 0"):
        replace(race_toys.task, lr_scale=0)
