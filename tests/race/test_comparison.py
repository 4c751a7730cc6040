from dataclasses import replace

import pytest
from race_records import finals, run

from steepest.race.records import RaceError
from steepest.race.statistics import (
    A_BETTER,
    B_BETTER,
    NO_DIFFERENCE,
    compare_folders,
    compare_optimizers,
    holm,
    paired_p,
    summarize,
)

LOW, HIGH = [1.0, 1.1, 1.2], [2.0, 2.11, 2.22]


def test_two_optimizers_of_one_race():
    records = [*finals("X", LOW, step_ms=1.0, state_bytes=400), *finals("Y", HIGH, peak_memory_bytes=30)]
    records += [
        *finals("X", HIGH, task="other", peak_memory_bytes=20),
        *finals("Y", [2.0, 2.2, 2.1], task="other", peak_memory_bytes=30),
        *finals("X", LOW, task="third"),
    ]
    found = compare_optimizers(summarize(records), "X", "Y")
    assert [(row.task, row.a.name, row.b.name) for row in found.rows] == [
        ("toy", "X", "Y"),
        ("other", "X", "Y"),
    ]
    first, second = found.rows
    assert first.pair.difference is not None
    assert first.pair.difference.mean == pytest.approx(-1.01)
    p = [paired_p(LOW, HIGH), paired_p(HIGH, [2.0, 2.2, 2.1])]
    assert [row.pair.p_holm for row in found.rows] == pytest.approx(holm([x for x in p if x is not None]))
    assert (first.pair.verdict, second.pair.verdict) == (A_BETTER, NO_DIFFERENCE)
    assert (first.step_ratio, first.state_ratio, first.memory_ratio) == (0.5, 0.5, None)
    assert second.memory_ratio == pytest.approx(2 / 3)
    assert (found.only_a, found.only_b) == (("third",), ())
    (turned, _) = compare_optimizers(summarize(records), "Y", "X").rows
    assert (turned.pair.verdict, turned.step_ratio) == (B_BETTER, 2.0)


def test_two_races():
    a = [*finals("X", LOW), *finals("Z", LOW)]
    b = [*finals("X", HIGH, steps=200), *finals("W", LOW, steps=200)]
    found = compare_folders(summarize(a), summarize(b))
    (row,) = found.rows
    assert (row.task, row.a.name, row.b.name) == ("toy", "X", "X")
    assert row.pair.verdict == A_BETTER
    assert row.note == "steps 100 and 200"
    assert (found.only_a, found.only_b) == (("Z on toy",), ("W on toy",))


def test_races_match_by_task_preset_and_protocol_and_tell_other_differences():
    a = finals("X", LOW, engine={"device": "cpu"})
    other_machine = finals("X", HIGH, engine={"device": "cuda"}, task_version="2")
    (row,) = compare_folders(summarize(a), summarize(other_machine)).rows
    assert row.note == "task version 1 and 2, device cpu and cuda"
    both = [
        *other_machine,
        *(replace(r, key=f"cpu {r.key}", engine={"device": "cpu"}) for r in other_machine),
    ]
    (row,) = compare_folders(summarize(a), summarize(both)).rows
    assert row.note == "task version 1 and 2"
    for change in ({"preset": "full"}, {"protocol": "paper"}, {"task": "other"}):
        with pytest.raises(RaceError, match="nothing to compare: A has X on toy; B has X on"):
            compare_folders(summarize(a), summarize(finals("X", LOW, **change)))


def test_what_cannot_be_compared_is_refused():
    records = [*finals("AdamW", LOW), run("ANDI", "final", 0.1, 1, 1.0, task="other")]
    with pytest.raises(RaceError, match="no runs of 'AdamV' in the folder; did you mean 'AdamW'"):
        compare_optimizers(summarize(records), "ANDI", "AdamV")
    with pytest.raises(RaceError, match="no runs of '/some/folder' in the folder; there are AdamW, ANDI"):
        compare_optimizers(summarize(records), "/some/folder", "AdamW")
    with pytest.raises(RaceError, match="share no task"):
        compare_optimizers(summarize(records), "ANDI", "AdamW")
    with pytest.raises(RaceError, match="both 'ANDI'"):
        compare_optimizers(summarize(records), "ANDI", "ANDI")
