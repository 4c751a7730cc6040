from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steepest.race.records import RaceError
from steepest.race.search import EXTENSIONS, POINTS, Grid, search


def follow(grid: Grid, loss) -> tuple[dict[float, float], float | None, bool]:
    """Do what the search asks until it is done."""
    losses: dict[float, float] = {}
    while not (state := search(grid, losses)).done:
        missing = [rate for rate in state.rates if rate not in losses]
        assert missing
        losses |= {rate: loss(rate) for rate in missing}
    return losses, state.best, state.on_edge


def bowl(best: float):
    return lambda rate: (math.log10(rate) - math.log10(best)) ** 2


def test_default_grids_lie_on_one_lattice_whatever_the_start() -> None:
    assert Grid.around(1e-2).points == (0.001, 0.00316, 0.01, 0.0316, 0.1)
    assert Grid.around(0.02).points[2] == pytest.approx(0.0316)
    assert {len(Grid.around(start).points) for start in (1e-5, 3e-3, 1.0, 7.0)} == {POINTS}


def test_a_best_rate_inside_costs_the_same_for_everyone() -> None:
    losses, best, on_edge = follow(Grid.around(1e-2), bowl(0.0316))
    assert (len(losses), best, on_edge) == (POINTS, 0.0316, False)


@pytest.mark.parametrize(("true", "extra"), [(0.1, 1), (0.316, 2), (1e-3, 1), (1e-4, 3)])
def test_a_best_rate_on_the_edge_extends_the_grid(true: float, extra: int) -> None:
    losses, best, on_edge = follow(Grid.around(1e-2), bowl(true))
    assert (len(losses), best, on_edge) == (POINTS + extra, true, False)


def test_extension_is_bounded_and_says_so() -> None:
    losses, best, on_edge = follow(Grid.around(1e-2), lambda rate: -rate)
    assert sorted(losses)[-4:] == [0.316, 1.0, 3.16, 10.0]
    assert (len(losses), best, on_edge) == (POINTS + EXTENSIONS, 10.0, True)


def test_diverged_rates_lose_and_if_all_do_the_grid_goes_down() -> None:
    losses, best, _ = follow(Grid.around(1e-2), lambda rate: math.inf if rate > 2e-4 else bowl(3e-5)(rate))
    assert best is not None
    assert best < 2e-4
    losses, best, on_edge = follow(Grid.around(1e-2), lambda rate: math.inf)
    assert (min(losses), best, on_edge) == (1e-5, None, False)


def test_an_explicit_grid_is_continued_by_its_own_ratio_and_a_single_rate_is_not() -> None:
    losses, best, _ = follow(Grid.explicit([0.4, 0.1, 0.2]), bowl(0.8))
    assert (sorted(losses), best) == ([0.1, 0.2, 0.4, 0.8, 1.6], 0.8)
    losses, best, on_edge = follow(Grid.explicit([0.1]), bowl(1.0))
    assert (losses.keys(), best, on_edge) == ({0.1}, 0.1, False)


@pytest.mark.parametrize("rates", [[], [0.1, -1.0], [0.0], [math.nan], [math.inf]])
def test_rates_must_be_positive_numbers(rates: list[float]) -> None:
    with pytest.raises(RaceError, match="--lr-grid"):
        Grid.explicit(rates)


@given(start=st.floats(1e-6, 10), true=st.floats(1e-6, 10))
def test_an_inner_best_is_better_than_both_neighbours(start: float, true: float) -> None:
    losses, best, on_edge = follow(Grid.around(start), bowl(true))
    assert best is not None
    assert losses[best] == min(losses.values())
    ordered = sorted(losses)
    assert on_edge == (best in (ordered[0], ordered[-1]))
