"""The plan as a table."""

import pytest
import torch
from torch import nn

import steepest


def model() -> nn.Sequential:
    torch.manual_seed(0)
    block = lambda: nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16))  # noqa: E731
    return nn.Sequential(nn.Embedding(9, 16), block(), block(), nn.Linear(16, 9, bias=False))


def lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_without_an_optimizer():
    groups = steepest.param_groups(model(), {"3": {"lr": 1e-3}})
    assert lines(str(groups)) == [
        ["parameter", "shape", "role", "rule", "lr", "decay"],
        lines(str(groups))[1],
        ["0.weight", "9x16", "embedding", "aux"],
        ["*.0.weight", "16x16 x 2", "matrix", "matrix"],
        ["*.0.bias", "16 x 2", "bias", "aux", "0"],
        ["*.1.weight", "16 x 2", "norm", "aux", "0"],
        ["*.1.bias", "16 x 2", "norm", "aux", "0"],
        ["3.weight", "9x16", "head", "aux", "0.001"],
        ["10 parameters, 896 entries, 5 groups"],
    ]
    full = lines(groups.table(full=True))
    assert [row[0] for row in full[2:-1]] == list(groups.roles)
    assert all(len(line) == len(line.rstrip()) for line in str(groups).splitlines())


def test_numbers_alone_are_not_blocks():
    groups = steepest.param_groups(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9)))
    assert "Note: '2.weight' is taken for the output head" in str(groups)
    assert [row[0] for row in lines(str(groups))[2:4]] == ["0.weight", "1.weight"]


def test_with_an_optimizer():
    net = model()
    groups = steepest.param_groups(net)
    muon = steepest.Muon(groups, lr=0.02, weight_decay=0.1, aux={"lr": 3e-4})
    before = [p.detach().clone() for p in net.parameters()]
    rows = {row[0]: row for row in lines(groups.table(muon))[2:-1]}
    assert rows["*.0.weight"][2:6] == ["matrix", "Muon", "0.02", "0.1"]
    assert rows["0.weight"][2:6] == ["embedding", "AdamW", "0.0003", "0"]
    # the root mean square of an orthogonal 16 x 16 matrix is 1/4; five iterations come within a third
    assert float(rows["*.0.weight"][6]) == pytest.approx(0.25, rel=0.34)
    assert float(rows["0.weight"][6]) == pytest.approx(0.24, rel=0.2)
    assert rows["*.0.weight"][7] == "2.05 KB"  # two matrices, one float32 buffer each
    assert rows["0.weight"][7] == "1.16 KB"  # two buffers and a count of steps
    assert lines(groups.table(muon))[-2] == ["10 parameters, 896 entries, 5 groups, 5.15 KB of state"]
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not muon.state


def test_with_optimizers_of_torch():
    groups = steepest.param_groups(model())
    rows = {row[0]: row for row in lines(groups.table(torch.optim.SGD(groups, lr=0.1, momentum=0.9)))[2:-1]}
    assert rows["*.0.weight"][3] == "SGD"
    assert rows["*.0.weight"][7] == "2.05 KB"
    adam = torch.optim.AdamW(groups, lr=0.1)
    assert {row[0]: row for row in lines(groups.table(adam))[2:-1]}["3.weight"][7] == "1.16 KB"


def test_cut_parameters_say_so():
    attention = nn.MultiheadAttention(8, 2)
    text = str(steepest.param_groups(attention, {"out_proj": {"split_sizes": [2, 6], "split_dim": 1}}))
    assert "8x8 (2+6 columns)" in text
    assert "24x8 (3 of 8 rows)" in str(steepest.param_groups(attention, split_fused=True))


def test_an_optimizer_of_other_parameters_is_refused():
    groups = steepest.param_groups(model())
    with pytest.raises(
        ValueError, match=r"the Muon given does not hold '0.weight': build it from these groups"
    ):
        groups.table(steepest.Muon(steepest.param_groups(model())))
