from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.tiny import TINY
from steepest.bench import runner, scaling
from steepest.bench.contenders import BenchError
from steepest.bench.orthogonality import deviations
from steepest.bench.runner import Settings, run
from steepest.bench.sets import SETS

SMALL = {**SETS, **{name: replace(TINY, name=name) for name in ("small", "block")}}


def settings(**more) -> Settings:
    chosen = {"sets": ("small", "block"), "optimizers": ("ANDI",), "peers": ("plain",), "rounds": 3}
    return Settings(**chosen | more)


def go(path: Path, chosen: Settings, **more):
    lines: list[str] = []
    found = run(chosen, path, "steepest bench", lines.append, sets=SMALL, **more)
    return found, lines


def test_the_file_holds_what_the_results_are(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    seen: list[str] = []
    found, _ = go(path, settings(), finished=lambda panel: seen.append(panel["set"]))
    assert json.loads(path.read_text()) == found
    assert set(found) == {
        "schema",
        "complete",
        "key",
        "command",
        "machine",
        "versions",
        "missing",
        "panels",
    }
    assert found["complete"]
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert len(found["panels"]) == 2
    first = found["panels"][0]
    assert set(first) == {"set", "title", "family", "parameters", "complete", "load", "rows"}
    rows = {row["name"]: row for row in first["rows"]}
    assert list(rows) == ["torch AdamW fused", "steepest ANDI", "steepest ANDI unchecked", "plain ANDI"]
    assert all(len(row["times_ms"]) == 3 and min(row["times_ms"]) > 0 for row in rows.values())
    assert all(row["first_ms"] > 0 for row in rows.values())
    assert rows["steepest ANDI"]["state_bytes_per_parameter"] == 4
    assert rows["plain ANDI"]["peak_bytes"] > rows["torch AdamW fused"]["peak_bytes"]
    assert len(seen) == 2


def test_an_interrupted_run_goes_on_and_a_finished_one_starts_anew(tmp_path: Path, monkeypatch) -> None:
    path, measure, calls = tmp_path / "bench.json", runner.measure, []

    def once(*arguments):
        calls.append(1)
        rows, _ = measure(*arguments)
        return rows, len(calls) != 2  # Ctrl-C in the second panel

    monkeypatch.setattr(runner, "measure", once)
    with pytest.raises(KeyboardInterrupt):
        go(path, settings())
    kept = json.loads(path.read_text())
    assert not kept["complete"]
    assert [panel["complete"] for panel in kept["panels"]] == [True, False]

    found, lines = go(path, settings())
    assert any("going on" in line for line in lines)
    assert found["panels"][0] == kept["panels"][0]
    assert len(calls) == 3  # only the panel that was cut short
    assert [panel["complete"] for panel in found["panels"]] == [True, True]

    go(path, settings())
    assert len(calls) == 5


@pytest.mark.parametrize(("other", "fresh"), [(settings(rounds=4), False), (settings(), True)])
def test_other_settings_or_fresh_do_not_go_on(tmp_path: Path, other: Settings, fresh: bool) -> None:
    path = tmp_path / "bench.json"
    found, _ = go(path, settings())
    path.write_text(json.dumps({**found, "complete": False}))
    _, lines = go(path, other, fresh=fresh)
    assert not any("going on" in line for line in lines)


def test_what_a_full_run_adds(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "import_seconds", lambda: [0.1])
    monkeypatch.setattr(runner, "copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(runner, "deviations", lambda device: deviations(device, [(8, 16)]))
    monkeypatch.setattr(
        scaling,
        "by_count",
        lambda device, seconds, say: [{"name": "steepest ANDI", "parameters": 1, "ms": 1.0}],
    )
    monkeypatch.setattr(scaling, "LONGEST", 0.0)
    monkeypatch.setattr(scaling, "BY_SIDE", ("steepest Muon", "steepest SOAP"))
    monkeypatch.setattr(
        scaling, "by_side", lambda *given, by_side=scaling.by_side: by_side(*given, sides=(16, 24, 32))
    )
    found, _ = go(tmp_path / "bench.json", settings(sets=("small",), extra=True, seconds=0.0))
    assert found["copy_bytes_per_second"] == 1e9
    assert {entry["name"] for entry in found["orthogonality"]} == {"steepest Muon", "torch Muon"}
    assert all(0 <= entry["rms"] < 0.5 for entry in found["orthogonality"])
    assert found["scaling"]["count"]
    sides = found["scaling"]["side"]
    assert sides[0]["name"] == "steepest Muon"
    assert sides[0]["ms"] > 0
    assert "would take about" in sides[1]["error"]  # no time is enough


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sets": ("gtp",)}, "--sets: unknown parameter set 'gtp'; did you mean 'gpt'?"),
        ({"rounds": 0}, "--rounds must be at least 1, got 0"),
        ({"seconds": float("nan")}, "--seconds must be at least 0, got nan"),
        ({"threads": -1}, "--threads must be at least 1, got -1"),
        ({"device": "tpu9"}, "--device must be cpu or cuda, got 'tpu9'"),
        ({"device": "meta"}, "--device must be cpu or cuda, got 'meta'"),
        ({"device": "cuda:99"}, "--device cuda:99: torch finds"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(BenchError) as caught:
        settings(**wrong)
    assert str(caught.value).startswith(message)
