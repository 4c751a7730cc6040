from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from steepest import __version__
from steepest.bench.sets import SETS
from steepest.bench.timing import measure
from steepest.cli import main
from steepest.race.manifest import latest_race
from steepest.race.records import read_records
from steepest.race.statistics import summarize, table_rows

TOYS = Path(__file__).parent / "race"
RACE = ["race", "race_toys:task", "--optimizers", "Muon,SGD", "--seeds", "2", "--steps", "40"]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOYS)


def here(kind: str, engine, log: Path, *, address: str | None, workers: int | None):
    """An executor without processes: what they add is tested with the executor."""
    return importlib.import_module("race_toys").Inline(workers or 2)


def interrupted(*arguments, **options):
    """An executor that is hit by Ctrl-C after two runs."""
    executor = here(*arguments, **options)
    work = executor.next_record

    def next_record():
        if len(executor.done) == 2:
            signal.raise_signal(signal.SIGINT)
        return work()

    executor.next_record = next_record
    return executor


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "steepest", *arguments],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(TOYS), OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_records(process: subprocess.Popen[str], path: Path, count: int) -> None:
    while not path.exists() or len(path.read_bytes().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a process has started, where the system tells."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(word) for word in children.read_text().split()] if children.exists() else []


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def results(folder: Path) -> list[tuple]:
    return [(r.key, r.phase, r.status, r.final_loss, r.train_curve) for r in latest_race(folder)[0]]


def table(folder: Path) -> list[dict[str, str]]:
    return [
        {k: v for k, v in r.items() if k != "step ms"} for r in table_rows(summarize(latest_race(folder)[0]))
    ]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_race_killed_half_way_ends_in_the_table_of_an_uninterrupted_one(
    tmp_path: Path, toys, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("steepest.cli.racing.make_executor", here)
    assert main([*RACE, "--out", "whole", "--workers", "2"]) == 0
    assert "Report: whole/report/index.html" in capsys.readouterr().out

    killed = start([*RACE, "--out", "killed", "--workers", "1"], tmp_path)
    path = tmp_path / "killed" / "records.jsonl"
    wait_for_records(killed, path, 8)
    workers = workers_of(killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert workers or not Path("/proc/self/task").exists()
    while any(map(is_alive, workers)):  # a worker ends by itself when its race is gone
        time.sleep(0.02)
    before = read_records(tmp_path / "killed")
    assert 8 <= len(before) < len(results(tmp_path / "whole"))

    # A test run started in the background inherits an ignored SIGINT.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr("steepest.cli.racing.make_executor", interrupted)
        assert main([*RACE, "--out", "killed"]) == 130
    signal.signal(signal.SIGINT, inherited)
    assert len(read_records(tmp_path / "killed")) == len(before) + 2
    err = capsys.readouterr().err
    assert err.strip().splitlines() == ["steepest: stopped; what is done is recorded, the same call goes on"]

    assert main([*RACE, "--out", "killed", "--workers", "1"]) == 0
    assert "runs are already recorded" in capsys.readouterr().out
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    lines = path.read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines)  # nothing was run twice
    assert {r.key: r.started for r in before}.items() <= {
        r.key: r.started for r in read_records(tmp_path / "killed")
    }.items()


def test_failed_runs_are_told_at_the_end_and_can_be_tried_again(
    tmp_path: Path, toys, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("steepest.cli.racing.make_executor", here)
    call = [
        "race",
        "race_toys:task",
        "--optimizers",
        "race_toys:RaisesInStep",
        "--lr-grid",
        "0.1",
        "--seeds",
        "1",
    ]
    call += ["--out", str(tmp_path), "--workers", "1", "--steps", "4"]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert "[3/3]" in out
    assert "1 of 3 runs failed" in out
    assert "toy RaisesInStep: ZeroDivisionError: third step (step 3)" in out
    assert "Traceback" not in out
    assert main(call) == 0
    assert "3 of 3 runs are already recorded" in capsys.readouterr().out
    assert main([*call, "--retry-failed"]) == 0
    assert "2 of 4 runs are already recorded" in capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 0
    assert f"Report: {tmp_path / 'report' / 'index.html'}" in capsys.readouterr().out.replace("\n", "")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "RaisesInStep" in page
    assert "steepest race race_toys:task" in page  # the command that repeats it


def test_plan_runs_and_writes_nothing(tmp_path: Path, toys, capsys) -> None:
    out = tmp_path / "out"
    assert main([*RACE, "--plan", "--out", str(out), "--workers", "2", "--time-budget", "0.1s"]) == 0
    said = capsys.readouterr().out
    assert "In all 21 runs, about 1 s of one core, 0 s with 2 workers." in said
    assert "0.001 0.00316 0.01 0.0316 0.1" in said
    assert "waits for AdamW" in said
    assert "would stop it before the end" in said
    assert not out.exists()


def test_a_time_budget_ends_with_what_there_is(tmp_path: Path, toys, capsys) -> None:
    assert main([*RACE, "--out", str(tmp_path), "--time-budget", "0", "--workers", "1"]) == 1
    assert "Nothing has been run." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["race", "digit"], 2, "unknown task 'digit'; did you mean 'digits'?"),
        (["race", ""], 2, "TASKS is empty"),
        (["race", "race_toys:data"], 2, "'race_toys:data' made a tuple, not a steepest.race.Task"),
        (["race", "nowhere:task"], 2, "cannot load task 'nowhere:task'"),
        (["race", "digits,steepest.race.tasks.digits:task"], 2, "two tasks are named 'digits'"),
        (["race", "--optimizers", "Moun"], 2, "unknown optimizer 'Moun'; did you mean 'Muon'?"),
        (["race", "--optimizers", "Muon(stepz=3)"], 2, "unknown argument 'stepz'; did you mean 'steps'?"),
        (["race", "--lr-grid", "0.1,-2"], 2, "--lr-grid must be positive finite numbers, got -2.0"),
        (["race", "--lr-grid", "fast"], 2, "--lr-grid must be comma-separated numbers, got 'fast'"),
        (["race", "--time-budget", "soon"], 2, "--time-budget must be"),
        (["race", "--steps", "0"], 2, "--steps"),
        (["race", "--seeds", "0"], 2, "--seeds"),
        (["race", "--workers", "none"], 2, "--workers"),
        (["race", "--sedes", "3"], 2, "--sedes"),
        (["rase"], 2, "rase"),
        (["race", "race_toys:task@full"], 2, "task 'race_toys:task' has no preset 'full'"),
        (["race", "--preset", "ful"], 2, "preset must be one of cpu, full, got 'ful'; did you mean 'full'?"),
        (["race", "--protocol", "pap"], 2, "protocol must be one of fair, paper, got 'pap'; did you mean"),
        (["race", "--protocol", "paper"], 2, "no paper's settings are known for the task 'digits'"),
        (["race", "--data", "{file}"], 2, "there is no such folder"),
        (["race", "--schedule", "cosin"], 2, "schedule must be one of linear, cosine, constant, got 'cosin'"),
        (["race", "--device", "tpu"], 2, "device must be one that torch knows"),
        (["race", "--clip", "0"], 2, "clip must be a positive finite norm, got 0.0"),
        (["race", "--tune", "momentum"], 2, "--tune ARGUMENTS and --trials N belong together"),
        (["race", "--tune", "momentun", "--trials", "2"], 2, "got 'momentun'; did you mean 'momentum'?"),
        (["race", "race_toys:task", "--out", "{file}"], 1, "cannot write to output folder"),
        (["race", "race_toys:task", "--out", "{file}/below"], 1, "cannot write to output folder"),
        (["report", "{file}"], 1, "cannot read"),
        (["report", "{file}.missing"], 1, "no records in"),
        (["show", "Moun"], 1, "did you mean 'Muon'?"),
        (["check", "nowhere:Thing"], 2, "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line_on_standard_error(
    arguments: list[str], code: int, message: str, tmp_path: Path, toys, capsys
) -> None:
    (tmp_path / "file").write_text("")
    assert main([a.format(file=tmp_path / "file") for a in arguments]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_an_unforeseen_error_is_one_line_too(monkeypatch, capsys) -> None:
    def broken(folder: Path):
        raise KeyError("unforeseen")

    monkeypatch.setattr("steepest.cli.reporting.latest_race", broken)
    assert main(["report"]) == 1
    assert capsys.readouterr().err == "steepest: KeyError: 'unforeseen' (STEEPEST_TRACEBACK=1 shows where)\n"


def test_version_list_and_help(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"steepest {__version__}\n"
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("ANDI", "Muon", "MuAdamSANIA", "SignSGD"))
    for command in ("race", "report", "list", "show", "check"):
        assert main([command, "--help"]) == 0
        assert command in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ANDI", "muon", "MuAdam", "MuAdamSANIA", "Adam", "SignSGD", "Steepest"])
def test_show_tells_formula_choices_rate_cost_source_and_limits(name: str, capsys) -> None:
    assert main(["show", name]) == 0
    said = capsys.readouterr().out
    titles = [
        "Formula",
        "Four choices",
        "Learning rate, coming from AdamW",
        "State",
        "When not to use it",
        "Source",
    ]
    lines = said.splitlines()
    assert [line for line in lines if line in titles] == titles
    for title in titles:
        assert lines[lines.index(title) + 1].startswith("  ")
    assert "`" not in said


def test_check_passes_the_verdict_on(capsys) -> None:
    assert main(["check", "torch.optim:SGD", "--kwargs", '{"lr": 0.1}', "--only", "step.closure"]) in (
        0,
        1,
        2,
    )
    capsys.readouterr()
    assert main(["check", "toys_that_are_not:There"]) == 2


def test_without_the_extra_one_line_tells_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setattr("steepest.cli.find_spec", lambda name: None if name == "typer" else object())
    assert main(["race"]) == 1
    err = capsys.readouterr().err
    assert 'pip install "steepest[race]"' in err
    assert len(err.splitlines()) == 1


def test_the_library_does_not_import_the_extra() -> None:
    code = (
        "import sys, steepest; print({'typer', 'rich', 'sklearn', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"


@pytest.fixture
def tiny_bench(monkeypatch, tmp_path: Path) -> list[str]:
    """A call of `steepest bench` that takes no time."""
    monkeypatch.setitem(SETS, "small", replace(SETS["small"], hidden=((20, 24), (24,))))
    monkeypatch.chdir(tmp_path)
    return ["bench", "--sets", "small", "--rounds", "3", "--device", "cpu", "--peers", "plain,torch"]


def test_bench_prints_tables_and_keeps_results(tiny_bench, capsys) -> None:
    assert main([*tiny_bench, "--optimizers", "andi,Muon"]) == 0
    printed = capsys.readouterr()
    for words in ("small tensors", "plain ANDI", "torch Muon", "Versions: python", "3 rounds"):
        assert words in printed.out
    assert "steepest ANDI ≤ 1 × torch AdamW fused, small" in printed.out
    assert "steepest SOAP ≤" not in printed.out
    assert "steepest: small, elementwise: 5 optimizers" in printed.err
    kept = json.loads(Path("bench-results.json").read_text())
    assert kept["complete"]
    assert kept["command"] == "steepest " + " ".join([*tiny_bench, "--optimizers", "andi,Muon"])
    assert [panel["family"] for panel in kept["panels"]] == ["elementwise", "spectral"]


def test_bench_prints_markdown_or_json_and_writes_a_page(tiny_bench, capsys) -> None:
    Path("page.md").write_text("Kept.\n<!-- bench:cpu begin --><!-- bench:cpu end -->\n")
    call = [*tiny_bench, "--optimizers", "ANDI", "--out", "o.json"]
    assert main([*call, "--format", "markdown", "--page", "page.md"]) == 0
    printed = capsys.readouterr().out
    assert "| optimizer | step ms |" in printed
    page = Path("page.md").read_text()
    assert page.startswith("Kept.")
    assert printed.strip() in page
    assert main([*call, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("o.json").read_text())


def test_bench_stopped_by_ctrl_c_keeps_what_is_measured(tiny_bench, capsys, monkeypatch) -> None:
    def stop(*arguments):
        rows, _ = measure(*arguments)
        return rows, False

    monkeypatch.setattr("steepest.bench.runner.measure", stop)
    assert main([*tiny_bench, "--optimizers", "ANDI"]) == 130
    printed = capsys.readouterr()
    assert "steepest ANDI" in printed.out
    assert "stopped early" in printed.out
    assert "stopped; what is measured is in bench-results.json, the same call goes on" in printed.err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--sets", "gtp"], "--sets: unknown parameter set 'gtp'; did you mean 'gpt'?"),
        (["--optimizers", "Adan"], "--optimizers: unknown method 'Adan'; did you mean"),
        (["--optimizers", "KFAC"], "KFAC cannot be measured"),
        (["--peers", "optax,"], "--peers: unknown peer 'optax'"),
        (["--sets", ","], "--sets is empty"),
        (["--device", "tpu"], "--device must be cpu or cuda, got 'tpu'"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--format", "html"], "html"),
    ],
)
def test_bench_refuses_what_it_does_not_know(tiny_bench, capsys, wrong, message) -> None:
    assert main([*tiny_bench, *wrong]) == 2
    err = capsys.readouterr().err
    assert err.startswith("steepest: ")
    assert message in err
    assert not Path("bench-results.json").exists()


def test_bench_refuses_a_page_without_markers_before_it_measures(tiny_bench, capsys) -> None:
    Path("page.md").write_text("no markers")
    assert main([*tiny_bench, "--page", "page.md"]) == 2
    assert "page.md has no lines <!-- bench:cpu begin -->" in capsys.readouterr().err
    assert not Path("bench-results.json").exists()
