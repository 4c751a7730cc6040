"""What K-FAC gathers: which passes count, and how examples, positions and repeated calls are weighed."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from steepest import KFAC, KFACPreconditioner


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def factors(model: nn.Module, weight, backward, **options) -> tuple[Tensor, Tensor]:
    """The covariances (A, B) of a weight after one step."""
    optimizer = KFAC(model, 0.0, **options)
    backward()
    optimizer.step()
    state = optimizer.state[weight]
    assert state["statistics_weight"] == pytest.approx(0.05)
    return state["output_covariance"], state["input_covariance"]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("average", ["batch", "batch+sequence", None])
def test_loss_average_undoes_the_mean(average):
    """The covariance of g for 4 examples of 3 positions does not depend on how the loss was averaged."""
    layer, x, pull = nn.Linear(5, 2).double(), normal(4, 3, 5), normal(4, 3, 2, seed=1)
    terms = {"batch": 4, "batch+sequence": 12, None: 1}[average]

    def backward():
        (layer(x) * pull).sum().div(terms).backward()

    a, b = factors(layer, layer.weight, backward, loss_average=average)
    rows = F.pad(x.reshape(12, 5), (0, 1), value=1.0)
    close(b, rows.T @ rows / 12)
    g = pull.reshape(12, 2)
    close(a, g.T @ g / {"batch": 4, "batch+sequence": 12, None: 4}[average])


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "replicate"])
@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
def test_convolution_rows_reproduce_the_convolution(mode, padding):
    """The patches and the weight's rows are in one order: W B W^T is the second moment of the output."""
    layer: Any = nn.Conv2d(3, 4, (3, 2), padding=padding, padding_mode=mode, dilation=(1, 2)).double()
    x = normal(2, 3, 6, 7)
    _, b = factors(layer, layer.weight, lambda: layer(x).sum().backward())
    matrix = torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1).detach()
    y = layer(x).detach().movedim(1, -1).reshape(-1, 4)
    close(matrix @ b @ matrix.T, y.T @ y / len(y))


def test_unbatched_image_is_a_batch_of_one():
    layer, x = nn.Conv2d(2, 3, 2).double(), normal(2, 4, 4)
    one = factors(layer, layer.weight, lambda: layer(x).square().sum().backward())
    many = factors(layer, layer.weight, lambda: layer(x[None]).square().sum().backward())
    for left, right in zip(one, many, strict=True):
        close(left, right)


def test_padding_index_takes_no_part():
    layer = nn.Embedding(5, 3, padding_idx=0).double()
    index, pull = torch.tensor([[0, 2, 2], [3, 0, 1]]), normal(2, 3, 3)

    def backward():
        (layer(index) * pull).sum().div(2).backward()

    a, b = factors(layer, layer.weight, backward)
    close(b, torch.tensor([0, 1, 2, 1, 0]).double() / 4)
    g = pull[index != 0]
    close(a, g.T @ g / 2)


def test_a_layer_called_twice_has_more_rows_and_not_more_examples():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            first = self.layer(x)
            self.rows = [x, torch.tanh(first)]
            self.outputs = [first, self.layer(self.rows[1])]
            return self.outputs[1]

    model: Any = Twice().double()
    x = normal(6, 4)

    def backward():
        loss = model(x).square().sum(1).mean()
        model.grads = torch.autograd.grad(loss, model.outputs, retain_graph=True)
        optimizer.zero_grad()  # forgets the calls of that extra pass
        loss.backward()

    optimizer = KFAC(model, 0.0)
    backward()
    optimizer.step()
    state, rows, d = optimizer.state[model.layer.weight], torch.cat(model.rows), torch.cat(model.grads)
    close(state["input_covariance"], (rows.T @ rows / 12).detach())
    close(state["output_covariance"], 6 * d.T @ d)


def test_one_layer_under_two_names_is_one_layer():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
            self.other.weight, self.other.bias = self.one.weight, self.one.bias

        def forward(self, x):
            return self.other(torch.tanh(self.one(x)))

    model = Shared().double()
    optimizer = KFAC(model, 0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
    x = normal(5, 3)
    model(x).square().mean().backward()
    optimizer.step()
    rows = F.pad(x, (0, 1), value=1.0)
    assert not torch.allclose(optimizer.state[model.one.weight]["input_covariance"], rows.T @ rows / 5)


def test_tied_embedding_and_head_are_refused_or_skipped():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"'0' \(Embedding\), '1' \(Linear\).*skip=\['0', '1'\]"):
        KFAC(model, 0.1)
    optimizer = KFAC(model, 0.1, skip=["1"])
    assert [group["rule"] for group in optimizer.param_groups] == ["aux"]


def test_passes_that_train_nothing_change_nothing():
    def train(disturbed: bool) -> dict:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.0), nn.Linear(3, 2)).double()
        optimizer = KFAC(model, 0.05, statistics_frequency=2)
        for t in range(6):
            optimizer.zero_grad()
            model(normal(8, 4, seed=t)).square().sum(1).mean().backward()
            if disturbed:
                with torch.no_grad():
                    model(normal(5, 4, seed=50 + t))
                model.eval()
                x = normal(5, 4, seed=60 + t).requires_grad_()
                torch.autograd.grad(model(x).sum(), x)
                model.train()
                model(normal(5, 4, seed=70 + t))  # never differentiated
            optimizer.step()
        return optimizer.state_dict()["state"]

    for left, right in zip(train(False).values(), train(True).values(), strict=True):
        assert left.keys() == right.keys()
        for name in left:
            assert torch.equal(left[name], right[name]), name


def test_statistics_come_at_their_frequency():
    model = nn.Linear(3, 2).double()
    optimizer = KFAC(model, 0.0, statistics_frequency=3)
    seen = []
    for t in range(7):
        optimizer.zero_grad()
        model(normal(4, 3, seed=t)).square().sum().backward()
        optimizer.step()
        seen.append(optimizer.state[model.weight]["input_covariance"].clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(seen)]
    assert changed == [False, False, True, False, False, True]


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_counts_once(reentrant):
    layer, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(), normal(5, 4).requires_grad_()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = layer

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    plain = factors(layer, layer[0].weight, lambda: layer(x).square().sum(1).mean().backward())
    model = Wrapped()
    again = factors(model, layer[0].weight, lambda: model(x).square().sum(1).mean().backward())
    for left, right in zip(plain, again, strict=True):
        close(left, right)


def test_autocast_does_not_reach_the_sums():
    layer, x = nn.Linear(64, 8), normal(32, 64).float()

    def backward():
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(x).float().square().sum(1).mean()
        loss.backward()

    _, b = factors(layer, layer.weight, backward)
    rows = F.pad(x, (0, 1), value=1.0)
    torch.testing.assert_close(b, rows.T @ rows / 32, rtol=1e-5, atol=1e-5)


def test_in_place_activation_and_keyword_input():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return F.relu(self.layer(input=x), inplace=True)

    model, x = Net().double(), normal(6, 3)
    a, _ = factors(model, model.layer.weight, lambda: model(x).sum(1).mean().backward())
    g = (model.layer(x) > 0).double()
    close(a, g.T @ g / 6)


@pytest.mark.parametrize("make", [KFAC, KFACPreconditioner])
def test_unseen_layers_are_named(make):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return x @ self.layer.weight.T

    model = Hidden()
    optimizer: Any = KFAC(model, lr=0.1) if make is KFAC else KFACPreconditioner(model)
    before = model.layer.weight.detach().clone()
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(RuntimeError, match=r"layer 'layer' has a gradient.*skip=\['layer'\]"):
        optimizer.step() if make is KFAC else optimizer.precondition()
    assert torch.equal(model.layer.weight, before)


def test_layers_inside_attention_go_to_aux():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    optimizer = KFAC(model, 1e-3)
    names = {group["rule"]: group["param_names"] for group in optimizer.param_groups}
    assert names["matrix"] == ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]
    assert "self_attn.out_proj.weight" in names["aux"]
    model(torch.randn(2, 3, 8)).square().mean().backward()
    optimizer.step()


def test_grouped_sparse_and_parametrised_layers_go_to_aux():
    model = nn.ModuleList(
        [
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Conv1d(4, 4, 3),
            nn.Embedding(4, 3, scale_grad_by_freq=True),
            torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
        ]
    )
    assert [group["rule"] for group in KFAC(model, 0.1).param_groups] == ["aux"]
