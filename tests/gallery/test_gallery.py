"""The pictures show what they say: balls of norm one, steepest points, paths that stay in their plane."""

import pytest
import torch

import steepest
from steepest.cli import app
from steepest.gallery import draw_balls, draw_equilibration, draw_paths, draw_portrait, draw_spectra
from steepest.gallery.balls import GRADIENT, NORMS, boundary, steepest_point
from steepest.gallery.maps import equilibrated
from steepest.gallery.paths import GOAL, RATES, START, best_path, walk
from steepest.gallery.plane import coordinates, matrix
from steepest.gallery.updates import SHAPE, gradient, last_update, sizes, spectrum
from steepest.optimizer import RuleOptimizer

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("name", NORMS)
def test_the_steepest_point_is_where_the_ball_goes_furthest(name):
    norm = NORMS[name]
    edge = boundary(norm)
    assert norm.value(matrix(*edge.unbind(-1))).flatten().allclose(torch.ones(len(edge), dtype=edge.dtype))
    g = torch.tensor(GRADIENT, dtype=torch.float64)
    reached = torch.tensor(steepest_point(norm), dtype=torch.float64) @ g
    assert (edge @ g).max() <= reached + 1e-9
    assert (edge @ g).max() >= reached - 1e-3
    assert 2 * reached == pytest.approx(norm.dual(matrix(*g)[None]).item())  # each coordinate stands twice


@pytest.mark.parametrize("name", NORMS)
def test_stretched_balls_are_those_of_the_stretched_matrix(name):
    norm, scale = NORMS[name], (1.0, 2.5)
    stretch = torch.tensor(scale, dtype=torch.float64)
    edge = boundary(norm, scale)
    assert torch.allclose(norm.value(matrix(*(edge * stretch).unbind(-1))), torch.ones(1, dtype=edge.dtype))
    g = torch.tensor(GRADIENT, dtype=torch.float64)
    reached = torch.tensor(steepest_point(norm, scale=scale), dtype=torch.float64) @ g
    assert (edge @ g).max() == pytest.approx(reached.item(), abs=1e-3)


def test_the_balls_are_the_four_shapes():
    circle, square, diamond, larger = (boundary(norm) for norm in NORMS.values())
    one = torch.ones(len(circle), dtype=torch.float64)
    assert circle.norm(dim=1).allclose(one * 0.5**0.5)
    assert square.abs().amax(1).allclose(one)
    assert diamond.abs().sum(1).allclose(one)
    assert larger.norm(dim=1).allclose(one)


@pytest.mark.parametrize("name", ["Muon", "AdamW", "ANDI", "SOAP", "Shampoo", "KFAC", "SignSGD", "Scion"])
def test_paths_start_and_stay_in_the_plane(name):
    path = walk(getattr(steepest, name), 0.01, steps=10)
    assert path.points.shape == (11, 2)
    assert path.points[0].tolist() == pytest.approx(START)
    assert path.loss < walk(getattr(steepest, name), 0.0, steps=1).loss


def test_the_plane():
    x, y = torch.randn(2, 5)
    assert torch.equal(torch.stack(coordinates(matrix(x, y))), torch.stack([x, y]))


def test_the_best_path_arrives(monkeypatch):
    monkeypatch.setattr("steepest.gallery.paths.RATES", RATES[2::4])  # one to a decade
    path = best_path(steepest.AdamW)
    assert (path.points[-1] - torch.tensor(GOAL)).norm() < 0.1
    assert path.lr == pytest.approx(10**-0.5)


def test_a_rate_that_diverges_is_not_the_best():
    assert walk(steepest.NormalizedSGD, 1e300, steps=5).loss > 1e3


def test_updates_show_what_their_methods_do():
    fixed = gradient(torch.Generator().manual_seed(0))
    assert fixed.shape == SHAPE
    before, muon = last_update(steepest.Muon)
    assert spectrum(before).max() / spectrum(before).min() > 50
    assert spectrum(muon).max() / spectrum(muon).min() < 2
    _, sign = last_update(steepest.SignSGD)
    assert sizes(sign, 0).allclose(torch.ones(SHAPE[1], dtype=torch.float64))
    _, andi = last_update(steepest.ANDI)
    uneven, evened = (sizes(one, 0).max() / sizes(one, 0).min() for one in (before, andi))
    assert evened < uneven / 2


def test_the_map_shows_entries_over_rows_and_columns():
    g = gradient(torch.Generator().manual_seed(3))
    by_hand = g / (g.norm(dim=1, keepdim=True) + g.norm(dim=0, keepdim=True))
    assert equilibrated(g).allclose(by_hand)


def test_comparisons_are_written_and_say_what_they_need(tmp_path):
    methods: list[type[RuleOptimizer]] = [steepest.ANDI, steepest.AdamW, steepest.SignSGD, steepest.Scion]
    rates = dict.fromkeys(methods, 0.05)
    assert draw_paths(rates, tmp_path / "paths.png").stat().st_size > 10_000
    assert draw_spectra([steepest.SignSGD, steepest.ANDI], tmp_path / "spectra.png").stat().st_size > 10_000
    assert draw_equilibration(tmp_path / "maps.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="at least one optimizer class"):
        draw_paths({}, tmp_path / "paths.png")
    with pytest.raises(ValueError, match="at least one optimizer class"):
        draw_spectra([], tmp_path / "spectra.png")
    with pytest.raises(ValueError, match=r"scale must be two numbers >= 1, got \(0.5, 1.0\)"):
        draw_balls(tmp_path / "balls.png", (0.5, 1.0))


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_are_written_and_repeat(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("steepest.gallery.paths.RATES", (0.1, 0.01))
    first = draw_portrait(steepest.Muon, tmp_path / "new folder" / f"a.{suffix}")
    assert first.stat().st_size > 10_000
    assert draw_balls(tmp_path / f"balls.{suffix}").stat().st_size > 5_000
    if suffix == "png":
        second = draw_portrait(steepest.Muon, tmp_path / "b.png")
        assert first.read_bytes() == second.read_bytes()


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("steepest.gallery.paths.RATES", (0.1,))
    assert app.run(["show", "andi", "--plot", str(tmp_path / "andi.png")]) == 0
    assert (tmp_path / "andi.png").exists()
    assert "Picture:" in capsys.readouterr().out
    assert app.run(["show", "andi", "--plot", str(tmp_path / "andi.gif")]) == 2
    assert "must end in .png, .svg or .pdf" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert app.run(["show", "andi", "--plot", str(tmp_path / "file" / "andi.png")]) == 2
    assert "cannot write" in capsys.readouterr().err
