"""K-FAC against a plain restatement that writes every layer as rows @ [W b]^T."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from references import kfac as reference
from steepest import KFAC, KFACPreconditioner

STEPS = 24
EXAMPLES = 12


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class PlainLayer:
    """y = rows @ [W b]^T, with the rows written out: patches, one-hot vectors or the input itself."""

    def __init__(self, module, rows_of: Callable[[Tensor], Tensor]):
        weight = module.weight.detach()
        if isinstance(module, nn.Embedding):
            weight = weight.T
        bias = getattr(module, "bias", None)
        self.bias = bias is not None
        matrix = weight.reshape(len(weight), -1)
        if bias is not None:
            matrix = torch.cat([matrix, bias.detach()[:, None]], 1)
        self.matrix = matrix.clone().requires_grad_()
        self.rows_of = rows_of
        self.state: dict = {}

    def __call__(self, x: Tensor) -> Tensor:
        self.rows = self.rows_of(x)
        ones = torch.ones(len(self.rows), self.bias, dtype=torch.float64)
        self.y = torch.cat([self.rows, ones], 1) @ self.matrix.T
        return self.y


def flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def patches(size: int, stride: int, padding: int, dilation: int) -> Callable[[Tensor], Tensor]:
    """Image patches in the order of output pixels, cut out one by one."""

    def cut(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        padded = torch.zeros(n, c, h + 2 * padding, w + 2 * padding, dtype=x.dtype)
        padded[:, :, padding : padding + h, padding : padding + w] = x
        reach = dilation * (size - 1) + 1
        starts = [range(0, d + 2 * padding - reach + 1, stride) for d in (h, w)]
        found = [
            padded[:, :, i : i + reach : dilation, j : j + reach : dilation].reshape(n, -1)
            for i in starts[0]
            for j in starts[1]
        ]
        return torch.stack(found, 1).reshape(-1, found[0].shape[1])

    return cut


def one_hot(count: int) -> Callable[[Tensor], Tensor]:
    return lambda index: torch.eye(count, dtype=torch.float64)[index.reshape(-1)]


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def mlp(bias: bool = True):
    model = nn.Sequential(nn.Linear(7, 6, bias=bias), nn.Tanh(), nn.Linear(6, 3, bias=bias)).double()
    first, last = PlainLayer(model[0], flat), PlainLayer(model[2], flat)
    return model, [first, last], lambda x: last(torch.tanh(first(x))), (7,)


def sequence():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), Mean(), nn.Linear(4, 3)).double()
    first, last = PlainLayer(model[0], flat), PlainLayer(model[3], flat)
    return model, [first, last], lambda x: last(torch.tanh(first(x)).reshape(len(x), -1, 4).mean(1)), (6, 5)


def convolution(stride=2, padding=1, dilation=1):
    conv = nn.Conv2d(2, 4, 3, stride=stride, padding=padding, dilation=dilation)
    with torch.no_grad():
        pixels = conv(torch.zeros(1, 2, 7, 6))[0, 0].numel()
    model = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(4 * pixels, 3, bias=False)).double()
    first = PlainLayer(model[0], patches(3, stride, padding, dilation))
    last = PlainLayer(model[3], flat)

    def forward(x: Tensor) -> Tensor:
        rows = torch.tanh(first(x)).reshape(len(x), -1, 4)
        return last(rows.transpose(1, 2).reshape(len(x), -1))

    return model, [first, last], forward, (2, 7, 6)


def embedding():
    model = nn.Sequential(nn.Embedding(9, 5), Mean(), nn.Linear(5, 3)).double()
    first, last = PlainLayer(model[0], one_hot(9)), PlainLayer(model[2], flat)
    return model, [first, last], lambda x: last(first(x).reshape(*x.shape, 5).mean(1)), None


NETWORKS = {
    "linear": mlp,
    "no_bias": lambda: mlp(bias=False),
    "sequence": sequence,
    "convolution": convolution,
    "dilated": lambda: convolution(stride=1, padding=2, dilation=2),
    "embedding": embedding,
}


def batches(shape, steps: int = STEPS):
    for t in range(steps):
        if shape is None:
            generator = torch.Generator().manual_seed(t)
            x = torch.randint(0, 9, (EXAMPLES, 4), generator=generator)
        else:
            x = normal(EXAMPLES, *shape, seed=t)
        yield x, normal(EXAMPLES, 3, seed=1000 + t)


def loss_of(y: Tensor, target: Tensor) -> Tensor:
    return (y - target).square().sum(1).mean()


def plain_run(layers, forward, shape, **o) -> list[Tensor]:
    """The weights after training by the restated rule."""
    decay, factored = o.get("stat_decay", 0.95), o.get("factored_damping", False)
    direction = reference.kfac_direction_factored if factored else reference.kfac_direction
    for t, (x, target) in enumerate(batches(shape)):
        loss = loss_of(forward(x), target)
        outputs = [layer.y for layer in layers]
        found = torch.autograd.grad(loss, [*outputs, *(layer.matrix for layer in layers)])
        grads = found[len(layers) :]
        directions = []
        for layer, d, g in zip(layers, found, grads, strict=False):
            s = layer.state
            if t % o.get("statistics_frequency", 1) == 0:
                a, b = reference.linear_statistics(layer.rows.detach(), EXAMPLES * d, layer.bias)
                a = a * len(d) / EXAMPLES
                for name, new in (("a", a), ("b", b)):
                    s[name] = decay * s.get(name, torch.zeros_like(new)) + (1 - decay) * new
                s["count"] = s.get("count", 0) + 1
            hat = 1 - decay ** s["count"]
            if t % o.get("precondition_frequency", 10) == 0:
                s["used"] = s["a"] / hat, s["b"] / hat
            if layer.rows_of.__qualname__.startswith("one_hot"):
                s["used"] = s["used"][0], s["b"] / hat
            a, b = s["used"]
            if o.get("statistics") == "input":
                a = torch.eye(len(a), dtype=a.dtype)
            directions.append(direction(g, a, b, o.get("damping", 1e-3)))
        lr = o["lr"]
        factor = reference.kl_factor(directions, list(grads), lr, o["kl_clip"]) if "kl_clip" in o else 1.0
        mu = o.get("momentum", 0.9)
        with torch.no_grad():
            for layer, u in zip(layers, directions, strict=True):
                m = mu * layer.state.get("m", torch.zeros_like(u)) + factor * u
                layer.state["m"] = m
                step = factor * u + mu * m if o.get("nesterov") else m
                layer.matrix.mul_(1 - lr * o.get("weight_decay", 0.0)).sub_(lr * step)
    return [layer.matrix.detach() for layer in layers]


def run(model, shape, optimizer, *, parts: int = 1) -> None:
    for x, target in batches(shape):
        optimizer.zero_grad()
        for some, wanted in zip(x.chunk(parts), target.chunk(parts), strict=True):
            (loss_of(model(some), wanted) / parts).backward()
        optimizer.step()


def matrices(model) -> list[Tensor]:
    found = []
    for module in model:
        if isinstance(module, nn.Embedding):
            found.append(module.weight.detach().T)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            matrix = module.weight.detach().flatten(1)
            found.append(
                matrix if module.bias is None else torch.cat([matrix, module.bias.detach()[:, None]], 1)
            )
    return found


def assert_close(actual: list[Tensor], expected: list[Tensor], start: list[Tensor], tolerance: float) -> None:
    for a, e, s in zip(actual, expected, start, strict=True):
        travelled = (e - s).abs().max()
        assert travelled > 1e-3
        assert (a - e).abs().max() <= tolerance * max(travelled, e.abs().max())


OPTIONS = {
    "plain": {"lr": 0.01, "damping": 0.1, "momentum": 0.0, "precondition_frequency": 1},
    "defaults": {"lr": 0.003, "damping": 0.3},
    "factored": {"lr": 0.01, "damping": 0.1, "factored_damping": True, "precondition_frequency": 3},
    "clip": {"lr": 0.1, "damping": 0.1, "kl_clip": 1e-2, "precondition_frequency": 4},
    "frequencies": {
        "lr": 0.01,
        "damping": 0.2,
        "statistics_frequency": 3,
        "precondition_frequency": 5,
        "stat_decay": 0.7,
        "weight_decay": 0.1,
        "nesterov": True,
    },
    "input": {"lr": 0.01, "damping": 0.1, "statistics": "input"},
    "input_factored": {"lr": 0.01, "damping": 0.1, "statistics": "input", "factored_damping": True},
}


CASES = [(network, options) for network in ("linear", "convolution", "embedding") for options in OPTIONS]
CASES += [(network, o) for network in ("no_bias", "sequence", "dilated") for o in ("clip", "frequencies")]


@pytest.mark.parametrize(("network", "options"), CASES)
def test_trajectory_of_the_restated_rule(network, options):
    torch.manual_seed(1)
    model, layers, forward, shape = NETWORKS[network]()
    start = matrices(model)
    start = [m.clone() for m in start]
    expected = plain_run(layers, forward, shape, **OPTIONS[options])
    run(model, shape, KFAC(model, **{"kl_clip": None, **OPTIONS[options]}))
    assert_close(matrices(model), expected, start, 1e-9)


@pytest.mark.parametrize("network", NETWORKS)
def test_micro_batches_are_one_batch(network):
    torch.manual_seed(2)
    model, layers, forward, shape = NETWORKS[network]()
    start = [m.clone() for m in matrices(model)]
    expected = plain_run(layers, forward, shape, **OPTIONS["clip"])
    run(model, shape, KFAC(model, **OPTIONS["clip"]), parts=3)
    assert_close(matrices(model), expected, start, 1e-9)


@pytest.mark.parametrize("network", ["linear", "convolution", "embedding"])
@pytest.mark.parametrize("clip", [None, 1e-2])
def test_in_front_of_sgd_it_is_kfac(network, clip):
    options = {"damping": 0.1, "kl_clip": clip, "precondition_frequency": 4, "statistics_frequency": 2}
    finals = []
    for front in (False, True):
        torch.manual_seed(3)
        model, _, _, shape = NETWORKS[network]()
        if front:
            sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            with KFACPreconditioner(model, **options) as filter_:
                sgd.register_step_pre_hook(
                    lambda *_, f=filter_: f.precondition(lr=None if clip is None else 0.01)
                )
                run(model, shape, sgd)
        else:
            run(model, shape, KFAC(model, 0.01, momentum=0.9, **options))
        finals.append(matrices(model))
    torch.testing.assert_close(*finals, rtol=1e-12, atol=1e-13)


def test_zero_damping_is_two_inverses():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(5, 4)).double()
    x, target = normal(40, 5), normal(40, 4, seed=1)
    before = matrices(model)[0].clone()
    optimizer = KFAC(model, 1.0, damping=0.0, momentum=0.0, kl_clip=None)
    y = model(x)
    loss_of(y, target).backward()
    rows = torch.cat([x, torch.ones(40, 1, dtype=torch.float64)], 1)
    d = 2 * (y.detach() - target)
    g = d.T @ rows / 40
    optimizer.step()
    u = torch.linalg.inv(d.T @ d / 40) @ g @ torch.linalg.inv(rows.T @ rows / 40)
    torch.testing.assert_close(before - matrices(model)[0], u, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", [{}, {"kl_clip": 1e-2}, {"factored_damping": True}])
def test_affine_changes_of_the_features_do_not_change_training(options):
    """Inputs A x and pre-activations C z, weights reparametrised: the same network for ever."""
    torch.manual_seed(5)
    a, c = normal(7, 7, seed=6) + 3 * torch.eye(7), normal(6, 6, seed=7) + 3 * torch.eye(6)
    shift = normal(7, seed=8)

    def train(changed: bool) -> list[Tensor]:
        torch.manual_seed(5)
        first, last = nn.Linear(7, 6).double(), nn.Linear(6, 3).double()
        if changed:
            with torch.no_grad():  # the first layer now gets A x + shift and returns C z
                inner = first.weight @ torch.linalg.inv(a)
                first.bias.copy_(c @ (first.bias - inner @ shift))
                first.weight.copy_(c @ inner)
        mix = (torch.linalg.inv(c) if changed else torch.eye(6)).double()
        model = nn.ModuleList([first, last])
        optimizer = KFAC(
            model, 0.02, **{"kl_clip": None, **options}, damping=0.0, precondition_frequency=1, stat_decay=0.9
        )
        outputs = []
        for t in range(STEPS):
            x, target = normal(60, 7, seed=t), normal(60, 3, seed=100 + t)
            optimizer.zero_grad()
            fed = x @ a.T + shift if changed else x
            y = last(torch.tanh(first(fed) @ mix.T))
            loss_of(y, target).backward()
            optimizer.step()
            outputs.append(y.detach())
        return outputs

    plain, changed = train(False), train(True)
    assert (plain[-1] - plain[0]).abs().max() > 0.1
    for one, other in zip(plain, changed, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-8)


def test_damping_breaks_the_invariance():
    """The check above can fail."""
    model = nn.Linear(4, 3).double()
    x, target = normal(30, 4), normal(30, 3, seed=1)
    moves = []
    for scale in (1.0, 10.0):
        twin = nn.Linear(4, 3).double()
        with torch.no_grad():
            twin.weight.copy_(model.weight / scale)
            twin.bias.copy_(model.bias)
        optimizer = KFAC(twin, 0.1, damping=0.1, momentum=0.0, kl_clip=None)
        loss_of(twin(scale * x), target).backward()
        optimizer.step()
        moves.append(twin(scale * x).detach())
    assert (moves[0] - moves[1]).abs().max() > 1e-3


def test_exact_where_kronecker_is():
    """One linear layer, squared loss: Gauss-Newton is B (x) I, and one step solves least squares."""
    torch.manual_seed(8)
    model = nn.Linear(6, 3).double()
    x, target = normal(50, 6), normal(50, 3, seed=1)
    optimizer = KFAC(model, 1.0, damping=0.0, momentum=0.0, statistics="input", kl_clip=None)
    (0.5 * loss_of(model(x), target)).backward()
    optimizer.step()
    rows = torch.cat([x, torch.ones(50, 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(rows, target).solution.T
    torch.testing.assert_close(matrices([model])[0], solution, rtol=1e-10, atol=1e-11)


def test_fisher_where_kronecker_is():
    """Targets drawn from the model's own unit Gaussian, inputs on a design: A (x) B is the Fisher matrix."""
    model = nn.Linear(3, 2, bias=False).double()
    x = normal(5, 3)
    noise = math.sqrt(2) * torch.cat([torch.eye(2), -torch.eye(2)]).double()  # covariance I
    inputs, residuals = x.repeat_interleave(4, 0), noise.repeat(5, 1)
    optimizer = KFAC(model, 1.0, damping=0.0, kl_clip=None)
    y = model(inputs)
    (0.5 * (y - (y.detach() - residuals)).square().sum(1)).mean().backward()
    optimizer.step()
    state = optimizer.state[model.weight]
    scores = torch.stack([torch.outer(r, i).flatten() for r, i in zip(residuals, inputs, strict=True)])
    fisher = scores.T @ scores / len(scores)
    kronecker = torch.kron(state["output_covariance"], state["input_covariance"])
    torch.testing.assert_close(kronecker, fisher, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(state["output_covariance"], torch.eye(2).double(), rtol=1e-12, atol=1e-13)
