"""Which lr: the size of updates, AdamW's lr carried over, and the range test."""

import json
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

import steepest
from steepest.cli import main
from steepest.update_size import update_rms


def shapes(*sizes: tuple[int, ...]) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(size, generator=generator)) for size in sizes]


# The size of updates.


@pytest.mark.parametrize(
    ("optimizer", "expected", "tolerance"),
    [
        (lambda ps: steepest.SignSGD(ps, lr=0.1), 1.0, 1e-4),
        (lambda ps: torch.optim.SGD(ps, lr=0.1), 1 / 16, 0.1),  # gradients of norm 1 in 256 entries
        (lambda ps: steepest.NormalizedSGD(ps, lr=0.1), 1 / 16, 1e-4),
        (lambda ps: steepest.Muon(ps, lr=0.1, orthogonalizer="svd"), 1 / 4, 1e-3),
        (lambda ps: steepest.Muon(ps, lr=0.1, orthogonalizer="svd", weight_decay=1.0), 1 / 4, 1e-3),
        (lambda ps: steepest.Muon(ps, lr=0.0, orthogonalizer="svd", scale="match_rms_adamw"), 0.2, 1e-3),
        (lambda ps: steepest.AdamW(ps, lr=3e-4), math.sqrt(0.1 / 1.9), 0.15),
        (lambda ps: torch.optim.Adam(ps, lr=1.0), math.sqrt(0.1 / 1.9), 0.15),
    ],
)
def test_sizes_that_are_known(optimizer, expected, tolerance):
    [weight] = shapes((16, 16))
    before = weight.detach().clone()
    built = optimizer([weight])
    assert update_rms(built)[weight] == pytest.approx(expected, rel=tolerance)
    assert torch.equal(weight, before)
    assert not built.state
    assert weight.grad is None


def test_shapes_alike_are_measured_once_and_groups_apart():
    params = shapes((4, 6), (4, 6), (6, 4), (5,))
    optimizer = steepest.SignSGD([{"params": params[:3]}, {"params": params[3:], "lr": 0.5}], lr=0.1)
    rms = update_rms(optimizer)
    assert set(rms) == set(params)
    assert [rms[p] for p in params] == pytest.approx([1.0] * 4, rel=1e-4)


def test_parts_of_a_parameter_are_measured_with_their_sides():
    groups = [{"params": shapes((384, 128)), "split_sizes": [128] * 3}]
    rms = update_rms(steepest.AdamW(groups, betas=(0.0, 0.0)), steps=2)
    assert list(rms.values()) == [pytest.approx(1.0, rel=1e-3)]


def test_a_turn_on_the_hyperball_is_as_large_as_the_weight():
    [weight] = shapes((8, 8))
    optimizer = steepest.hyperball(steepest.Muon)([weight], lr=1e-4)
    assert update_rms(optimizer)[weight] == pytest.approx(weight.square().mean().sqrt().item(), rel=1e-2)


def test_sizes_on_gradients_of_ones_own():
    weight = Parameter(torch.zeros(3, 4))
    calls = []

    def backward():
        calls.append(1)
        weight.grad = torch.full_like(weight, 2.0)
        return torch.tensor(1.0, requires_grad=True)

    optimizer = torch.optim.SGD([weight], lr=0.1)
    assert update_rms(optimizer, backward=backward, steps=4)[weight] == pytest.approx(2.0)
    assert len(calls) == 4
    assert torch.equal(weight, torch.zeros(3, 4))


# AdamW's lr carried over.


def test_muon_matched_to_adamw_gets_nearly_its_lr():
    found = steepest.suggest_lr("Muon", 3e-4, shapes((64, 64), (256, 64)), scale="match_rms_adamw")
    assert 2.4e-4 < float(found) < 5e-4
    assert (found.optimizer, found.adamw_lr, found.aux_lr) == ("Muon", 3e-4, None)
    assert found.growth == pytest.approx(1.0, rel=1e-3)


def test_the_lr_makes_updates_equally_large():
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 4))
    found = steepest.suggest_lr("Muon", 1e-3, model, orthogonalizer="svd")
    assert found.aux_lr == 1e-3
    adam = math.sqrt(0.1 / 1.9)
    # sqrt(2) times an orthogonal 64 x 32 matrix has norm 8, an orthogonal 32 x 64 one sqrt(32)
    expected = 1e-3 * math.sqrt(2 * 2048 * adam**2 / (64 + 32))
    assert found.lr == pytest.approx(expected, rel=0.1)
    by_shape = {one.shape: one for one in found.shapes}
    assert by_shape.keys() == {(64, 32), (32, 64)}
    assert by_shape[64, 32].own == pytest.approx(8 / math.sqrt(2048), rel=1e-3)
    for one in found.shapes:
        assert one.lr == pytest.approx(1e-3 * one.adamw / one.own)
    assert steepest.suggest_lr("Muon", 2e-3, model, orthogonalizer="svd").lr == pytest.approx(2 * found.lr)


def test_limits_are_told():
    follows = steepest.suggest_lr("SGD", 1e-3, shapes((32, 32)))
    assert follows.growth == pytest.approx(10.0, rel=1e-3)
    assert "follow the size of gradients (tenfold gradients, 10-fold updates)" in str(follows)
    apart = steepest.suggest_lr(steepest.Muon, 1e-3, shapes((4, 4), (64, 64)), orthogonalizer="svd")
    assert "shapes disagree, from" in str(apart)
    assert str(apart).startswith("Muon: begin at lr=")
    assert "multiply AdamW's weight_decay by" in str(apart)
    model = nn.Linear(4, 4)

    def backward():
        model.zero_grad()
        loss = model(torch.ones(2, 4)).square().mean()
        loss.backward()
        return loss

    own = steepest.suggest_lr("SignSGD", 1e-3, model, backward=backward)
    assert own.growth is None
    assert "measured on the gradients given" in str(own)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("Mun", 1e-3), {}, ValueError, "no optimizer is named 'Mun'; did you mean 'Muon'?"),
        (("Muon", 0.0), {}, ValueError, r"adamw_lr must be in \(0, inf\), got 0.0"),
        (("Muon", "1e-3"), {}, TypeError, "adamw_lr must be a number"),
        (("Muon", 1e-3), {"scal": 1}, TypeError, "unknown argument 'scal'; did you mean 'scale'"),
        (("Muon", 1e-3), {"lr": 1}, TypeError, "lr is what is asked for; leave it out"),
        (("Muon", 1e-3), {"steps": 1}, ValueError, "steps must be an integer >= 2, got 1"),
        (("Muon", 1e-3, shapes((4,))), {}, ValueError, "Muon's own rule takes none of these parameters"),
        (("Muon", 1e-3, torch.zeros(3)), {}, TypeError, "model must be a module, groups or .* got Tensor"),
        (("Muon", 1e-3), {"backward": lambda: 0}, TypeError, "backward needs the model"),
        (("KFAC", 1e-3), {}, ValueError, "KFAC steps from what its layers see.* use lr_range_test"),
        ((nn.Linear, 1e-3), {}, TypeError, "optimizer must be an optimizer class or its name"),
    ],
)
def test_wrong_calls_of_suggest_lr(arguments, options, error, message):
    with pytest.raises(error, match=message):
        steepest.suggest_lr(*arguments, **options)


# The range test.


class Problem:
    """Regression through batch normalisation and dropout: buffers and random numbers matter."""

    def __init__(self, make=None, weight: float = 1.0) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3)
        )
        self.x, self.y = torch.randn(40, 6), torch.randn(40, 3)
        self.weight = weight
        make = make or (lambda model: steepest.AdamW(model.parameters(), lr=1e-2))
        self.optimizer = make(self.model)

    def backward(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.weight * (self.model(self.x) - self.y).square().mean()
        loss.backward()
        return loss

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.backward()
            self.optimizer.step()

    def everything(self) -> list[Tensor]:
        state = [v for own in self.optimizer.state.values() for v in own.values() if isinstance(v, Tensor)]
        return [
            t.clone()
            for t in (*self.model.parameters(), *self.model.buffers(), *state, torch.get_rng_state())
        ]


MAKERS = {
    "AdamW": None,
    "Muon": lambda model: steepest.Muon(steepest.param_groups(model), lr=0.02, aux={"lr": 1e-3}),
    "SOAP": lambda model: steepest.SOAP(model.parameters(), lr=1e-3, precondition_frequency=2),
    "tensor lr": lambda model: steepest.ANDI(model.parameters(), lr=torch.tensor(0.02)),
    "torch": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("steps_before", [0, 2])
def test_everything_is_as_before_bit_for_bit(name, steps_before):
    problem, twin = Problem(MAKERS[name]), Problem(MAKERS[name])
    twin.train(steps_before)
    twin.train(3)
    expected = twin.everything()
    torch.manual_seed(0)
    problem = Problem(MAKERS[name])
    problem.train(steps_before)
    before, rates = problem.everything(), [group["lr"] for group in problem.optimizer.param_groups]
    kept = [p.grad for p in problem.model.parameters()]
    steepest.lr_range_test(problem.optimizer, problem.backward, problem.model, steps=20)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.everything(), strict=True))
    assert all(a is b for a, b in zip(kept, (p.grad for p in problem.model.parameters()), strict=True))
    assert all(a is g["lr"] for a, g in zip(rates, problem.optimizer.param_groups, strict=True))
    problem.train(3)
    assert all(torch.equal(a, b) for a, b in zip(expected, problem.everything(), strict=True))


@pytest.mark.parametrize("frequency", [1, 2])
def test_what_layers_saw_in_the_sweep_is_no_part_of_the_next_step(frequency):
    """K-FAC's statistics of a pass that no step followed, as in a sweep that ends early."""
    found = []
    for swept in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        x, y = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
        optimizer = steepest.KFAC(model, lr=0.05, statistics_frequency=frequency, precondition_frequency=2)

        def backward(model=model, x=x, y=y):
            model.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            return loss

        backward()
        optimizer.step()
        if swept:
            assert steepest.lr_range_test(optimizer, backward, model, lr_max=1e200, steps=12).diverged
        for _ in range(4):
            backward()
            optimizer.step()
        found.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_curve():
    problem = Problem()
    result = steepest.lr_range_test(
        problem.optimizer, problem.backward, problem.model, lr_min=1e-5, lr_max=1e-1, steps=41
    )
    assert len(result.lrs) == len(result.losses) == len(result.smoothed) == 41
    ratios = [b / a for a, b in zip(result.lrs, result.lrs[1:], strict=False)]
    assert ratios == pytest.approx([10**0.1] * 40)
    assert result.smoothed[0] == pytest.approx(result.losses[0])
    assert result.lowest == result.lrs[result.smoothed.index(min(result.smoothed))]
    fall = [result.smoothed[0] - x for x in result.smoothed]
    assert result.reached is not None
    at = result.lrs.index(result.reached)
    assert fall[at] >= 0.9 * max(fall) > fall[at - 1]
    assert result.lr == pytest.approx(result.reached / 3)
    assert "a third of" in str(result)


def test_a_diverging_sweep_ends_early():
    problem = Problem(lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    result = steepest.lr_range_test(problem.optimizer, problem.backward, problem.model, lr_max=1e6, steps=60)
    assert result.diverged
    assert len(result.lrs) < 60
    assert result.lr is not None
    exploding = Problem(lambda m: steepest.Steepest(m.parameters(), lr=0.1), weight=1e30)
    ended = steepest.lr_range_test(
        exploding.optimizer, exploding.backward, exploding.model, lr_min=1e20, lr_max=1e30
    )
    assert ended.diverged
    assert ended.lr is None
    assert "no lr can be suggested" in str(ended)


def test_groups_keep_their_ratios_and_auxiliary_ones_their_lr():
    def make(model):
        groups = steepest.param_groups(model, {"0.weight": {"lr": 0.01}, "4.weight": {"role": "matrix"}})
        return steepest.Muon(groups, lr=0.02, aux={"lr": 1e-3})

    problem = Problem(make)
    seen = []

    def backward():
        seen.append([(g["rule"], g["lr"]) for g in problem.optimizer.param_groups])
        return problem.backward()

    for all_groups in (False, True):
        seen.clear()
        steepest.lr_range_test(problem.optimizer, backward, problem.model, steps=10, all_groups=all_groups)
        for rates in seen:
            own = [lr for rule, lr in rates if rule == "matrix"]
            assert own[0] / own[1] == pytest.approx(0.5)
            aux = [lr for rule, lr in rates if rule == "aux"]
            assert aux == pytest.approx([max(own) / 20 if all_groups else 1e-3] * len(aux))
        assert max(lr for _, lr in seen[0]) == pytest.approx(1e-6 if all_groups else 1e-3)


def test_everything_is_restored_when_backward_fails():
    problem = Problem()
    problem.train(1)
    before, calls = problem.everything(), []

    def backward():
        calls.append(1)
        if len(calls) == 5:
            raise ZeroDivisionError("fifth")
        return problem.backward()

    with pytest.raises(ZeroDivisionError, match="fifth"):
        steepest.lr_range_test(problem.optimizer, backward, problem.model)
    assert all(torch.equal(a, b) for a, b in zip(before, problem.everything(), strict=True))


def test_a_loss_that_never_falls():
    weight = Parameter(torch.zeros(2))

    def backward():
        weight.grad = torch.zeros(2)
        return 1.0

    result = steepest.lr_range_test(torch.optim.SGD([weight], lr=0.1), backward, steps=10)
    assert (result.lr, result.reason[:19]) == (None, "the loss never fell")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizer": "Muon"}, TypeError, "optimizer must be a torch.optim.Optimizer, got str"),
        ({"backward": 3}, TypeError, "backward must be a function that returns the loss, got int"),
        (
            {"backward": lambda: 1.0},
            ValueError,
            r"backward left no gradients: it must call loss.backward\(\)",
        ),
        ({"backward": lambda: None}, TypeError, "backward must return the loss, a number, got NoneType"),
        ({"model": 3}, TypeError, "model must be a torch.nn.Module or None, got int"),
        ({"lr_min": 0.0}, ValueError, r"lr_min must be in \(0, inf\), got 0.0"),
        ({"lr_max": 1e-7}, ValueError, r"lr_max must be in \(1e-06, inf\), got 1e-07"),
        ({"steps": 9}, ValueError, "steps must be an integer >= 10, got 9"),
        ({"smoothing": 1.0}, ValueError, r"smoothing must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_calls_of_lr_range_test(change, error, message):
    problem = Problem()
    arguments = {"optimizer": problem.optimizer, "backward": problem.backward, "model": problem.model}
    with pytest.raises(error, match=message):
        steepest.lr_range_test(**{**arguments, **change})


# The commands.


def test_suggest_lr_on_the_command_line(capsys):
    call = ["suggest-lr", "Muon(scale='match_rms_adamw')", "--adamw-lr", "3e-4", "--shapes", "24x24,48x24"]
    assert main(call) == 0
    assert capsys.readouterr().out.startswith("Muon: begin at lr=0.0004")
    assert main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["shape"] for one in found["shapes"]] == [[24, 24], [48, 24]]


def test_lr_range_test_on_the_command_line(capsys):
    call = ["lr-range-test", "digits", "SignSGD", "--steps", "12", "--lr-max", "0.01"]
    assert main([*call, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["lrs"]) == 12
    assert main(call) == 0
    assert "a third of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["suggest-lr", "Mun", "--adamw-lr", "1"], "unknown optimizer 'Mun'; did you mean 'Muon'?"),
        (["suggest-lr", "Muon(scal=1)", "--adamw-lr", "1"], "unknown argument 'scal'; did you mean 'scale'?"),
        (["suggest-lr", "Muon", "--adamw-lr", "-1"], "adamw_lr must be in (0, inf), got -1.0"),
        (["suggest-lr", "Muon", "--adamw-lr", "1", "--shapes", "64"], "--shapes must be like 768x768"),
        (["suggest-lr", "Muon", "--adamw-lr", "1", "--model", "net"], "--model must be module:object"),
        (["suggest-lr", "Muon", "--adamw-lr", "1", "--model", "torch:zero"], "cannot load 'torch:zero'"),
        (["suggest-lr", "Muon", "--adamw-lr", "1", "--model", "math:pi"], "gives a float, not a"),
        (["lr-range-test", "digit", "Muon"], "unknown task 'digit'; did you mean 'digits'?"),
        (["lr-range-test", "digits", "Muon", "--lr-max", "1e-9"], "lr_max must be in (1e-06, inf)"),
    ],
)
def test_slips_on_the_command_line(call, message, capsys):
    assert main(call) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
