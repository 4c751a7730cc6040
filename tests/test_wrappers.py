"""Cautious decay and the hyperball, on any optimizer."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

import steepest


def gradients(shape: tuple[int, ...], steps: int = 20) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(steps)]


def start(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("shape", [(6, 4), (7,), ()])
def test_cautious_adamw_decays_only_what_the_step_shrinks(shape):
    w, m, v = start(shape), torch.zeros(shape).double(), torch.zeros(shape).double()
    param = torch.nn.Parameter(w.clone())
    optimizer = steepest.cautious(steepest.AdamW)([param], lr=0.01, weight_decay=0.5)
    plain = torch.nn.Parameter(w.clone())
    other = steepest.AdamW([plain], lr=0.01, weight_decay=0.5)
    for t, grad in enumerate(gradients(shape), start=1):
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        w = w - 0.01 * 0.5 * w * (step * w > 0) - 0.01 * step
        param.grad, plain.grad = grad.clone(), grad.clone()
        optimizer.step()
        other.step()
        torch.testing.assert_close(param.detach(), w, rtol=0, atol=1e-13)
    assert shape == () or (param - plain).abs().max() > 1e-3


def test_cautious_decay_refuses_methods_whose_decay_is_their_own():
    with pytest.raises(ValueError, match="cautious\\(Adam\\): its decay is 'l2'"):
        steepest.cautious(steepest.Adam)([torch.nn.Parameter(torch.ones(2))])
    with pytest.raises(TypeError, match="cls must be an optimizer class"):
        steepest.cautious(torch.optim.SGD)  # type: ignore[type-var]


@pytest.mark.parametrize("wrapper", [steepest.cautious, steepest.hyperball])
def test_dual_averaging_sets_the_weight_itself_and_refuses_wrappers(wrapper):
    with pytest.raises(ValueError, match="dual averaging sets the weight itself"):
        wrapper(steepest.MADGRAD)([torch.nn.Parameter(torch.ones(2))], decoupled=True)


def test_the_hyperball_keeps_the_norm_and_turns_by_lr():
    w = start((6, 4))
    radius = w.norm()
    param = torch.nn.Parameter(w.clone())
    optimizer = steepest.hyperball(steepest.SignSGD)([param], lr=0.1, momentum=0.0)
    for grad in gradients((6, 4)):
        step = grad.sign()
        w = w - 0.1 * radius * step / step.norm()
        w = radius * w / w.norm()
        param.grad = grad.clone()
        optimizer.step()
        torch.testing.assert_close(param.detach(), w, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["Muon", "SPlus"])
def test_lr_is_the_angle_whatever_the_method_divides_it_by(name):
    w = start((6, 4))
    param = torch.nn.Parameter(w.clone())
    optimizer = steepest.hyperball(getattr(steepest, name))([param], lr=0.1)
    param.grad = gradients((6, 4), 1)[0]
    optimizer.step()
    turned = param.detach() - w
    assert 0.08 < turned.norm() / w.norm() < 0.1


def test_the_hyperball_per_slice_of_a_stack():
    w = start((3, 5, 4))
    param = torch.nn.Parameter(w.clone())
    group = {"params": [param], "batch_dims": 1}
    optimizer = steepest.hyperball(steepest.Muon)([group], lr=0.3)
    param.grad = gradients((3, 5, 4), 1)[0]
    optimizer.step()
    torch.testing.assert_close(param.detach().norm(dim=(1, 2)), w.norm(dim=(1, 2)))
    assert (param - w).norm() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_zero_weight_a_zero_gradient_and_a_zero_lr_stay_still_on_the_hyperball(dtype):
    zero, weight = torch.zeros(3, 3, dtype=dtype), start((3, 3)).to(dtype)
    params = [torch.nn.Parameter(zero.clone()), torch.nn.Parameter(weight.clone())]
    optimizer = steepest.hyperball(steepest.AdamW)(params, lr=0.1)
    params[0].grad, params[1].grad = torch.ones(3, 3, dtype=dtype), torch.zeros(3, 3, dtype=dtype)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    params[1].grad = torch.ones(3, 3, dtype=dtype)
    optimizer.step()
    assert torch.equal(params[0], zero)
    assert torch.equal(params[1], weight)


@pytest.mark.parametrize("twice", [False, True])
def test_wrapped_classes_have_names_copies_and_pickles(twice):
    base = steepest.hyperball(steepest.Muon) if twice else steepest.Muon
    cls = steepest.cautious(base)
    assert cls.__name__ == f"Cautious{base.__name__}"
    assert cls is steepest.cautious(base)
    param = torch.nn.Parameter(start((4, 3)))
    optimizer = cls([param], weight_decay=0.1)
    param.grad = torch.ones_like(param)
    optimizer.step()
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert type(other) is cls
        twin = other.param_groups[0]["params"][0]
        twin.grad = param.grad.clone()
        other.step()
    optimizer.step()
    torch.testing.assert_close(twin, param)
