"""Ordered overrides, options by role, and what a slip of the pen is told."""

import re

import pytest
import torch
from torch import nn

import steepest


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(11, 6)
        self.h = nn.ModuleList(
            nn.ModuleDict({"attn": nn.Linear(6, 18), "mlp": nn.Linear(6, 6), "ln": nn.LayerNorm(6)})
            for _ in range(11)
        )
        self.lm_head = nn.Linear(6, 11, bias=False)


def tagged(overrides, **kwargs) -> dict[str, float]:
    """The lr given to each parameter by overrides."""
    groups = steepest.param_groups(Net(), overrides, **kwargs)
    return {name: g["lr"] for g in groups for name, _ in g["params"] if "lr" in g}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("lm_head.weight", ["lm_head.weight"]),
        ("lm_head", ["lm_head.weight"]),
        ("h.1", [f"h.1.{n}.{kind}" for n in ("attn", "mlp", "ln") for kind in ("weight", "bias")]),
        ("h.1?.*.weight", [f"h.10.{n}.weight" for n in ("attn", "mlp", "ln")]),
        (re.compile(r"^h\.[03]\.mlp\.weight$"), ["h.0.mlp.weight", "h.3.mlp.weight"]),
        (re.compile("wte"), ["wte.weight"]),
        (nn.Embedding, ["wte.weight"]),
        (lambda name, p: p.shape == (11, 6), ["wte.weight", "lm_head.weight"]),
    ],
    ids=["name", "module", "module, not its namesakes", "stars", "regex", "search", "type", "predicate"],
)
def test_what_a_match_takes(match, expected):
    assert sorted(tagged({match: {"lr": 0.5}})) == sorted(expected)


def test_the_first_match_wins():
    rates = tagged([("h.0", {"lr": 0.1}), (nn.ModuleList, {"lr": 0.2}), ("*", {"lr": 0.3})])
    assert rates["h.0.mlp.weight"] == 0.1
    assert rates["h.10.mlp.weight"] == 0.2
    assert rates["wte.weight"] == rates["lm_head.weight"] == 0.3
    assert len(rates) == 2 + 11 * 6


def test_options_of_overrides_go_before_those_of_roles_and_defaults():
    groups = steepest.param_groups(
        Net(),
        {"h.0": {"weight_decay": 0.5}, "wte": {"role": "matrix", "momentum": 0.8}},
        roles={"norm": {"weight_decay": 0.1, "lr": 0.2}, "matrix": {"lr": 0.4}},
    )
    options = {n: {k: v for k, v in g.items() if k != "params"} for g in groups for n, _ in g["params"]}
    assert options["h.0.ln.weight"] == {"role": "norm", "weight_decay": 0.5, "lr": 0.2}
    assert options["h.1.ln.weight"] == {"role": "norm", "weight_decay": 0.1, "lr": 0.2}
    assert options["wte.weight"] == {"role": "matrix", "lr": 0.4, "momentum": 0.8}
    muon = steepest.Muon(groups)
    assert [g["rule"] for g in muon.param_groups if g.get("momentum") == 0.8] == ["matrix"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lm_haed": {}}, r"'lm_haed' matches no trainable parameter; did you mean 'lm_head'"),
        ({"h.*.atn.weight": {}}, r"matches no .* did you mean 'h.\*.attn.weight'"),
        ({"transformer.h.*.mlp.weight": {}}, r"did you mean 'h.\*.mlp.weight'"),
        ({"xyz": {}}, r"'xyz' matches no .* names are like 'wte.weight' or 'h.0.attn.weight'"),
        (
            {re.compile("^attn"): {}},
            r"re.compile\('\^attn'\) matches no trainable parameter; the first are 'wte",
        ),
        ({nn.Conv2d: {}}, r"Conv2d matches no .* modules that hold one: Embedding, LayerNorm, Linear"),
        (
            [("h", {}), ("h.0", {})],
            r"'h.0' changes nothing: all it matches, such as 'h.0.attn.weight', is claimed by the earlier "
            "'h'; put it first",
        ),
        (
            {"wte": {"role": "embeding"}},
            r"'wte' names an unknown role 'embeding'; did you mean 'embedding'\?",
        ),
        ({"wte": {"lr": -1.0}}, r"the override 'wte': lr must be in \[0, inf\), got -1.0"),
    ],
)
def test_values_that_fit_nothing(overrides, message):
    with pytest.raises(ValueError, match=message):
        steepest.param_groups(Net(), overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"wte": {"weigth_decay": 0.1}},
            r"'wte' has an unknown option 'weigth_decay'; did you mean 'weight_decay'",
        ),
        ({"wte": {"params": []}}, "cannot set 'params'"),
        ({"wte": 0.1}, r"'wte' must give a dict of options such as \{'lr': 1e-3\}, got 0.1"),
        ({3: {}}, "an override matches a pattern of names .* got 3"),
        ({int: {}}, "an override matches a torch.nn.Module class, .* got the class int"),
        ("wte", r"overrides must be a dict or a list of \(match, options\) pairs, got 'wte'"),
        ([("wte",)], r"overrides must hold \(match, options\) pairs, got \('wte',\)"),
        ({"wte": {"lr": "x"}}, "the override 'wte': lr must be a number"),
    ],
)
def test_overrides_of_a_wrong_kind(overrides, message):
    with pytest.raises(TypeError, match=message):
        steepest.param_groups(Net(), overrides)


def test_options_by_role_are_checked():
    with pytest.raises(ValueError, match=r"roles names an unknown role 'norms'; did you mean 'norm'\?"):
        steepest.param_groups(Net(), roles={"norms": {}})
    with pytest.raises(TypeError, match="roles must be a dict"):
        steepest.param_groups(Net(), roles=["norm"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"roles\['norm'\] has an unknown option 'lrr'; did you mean 'lr'"):
        steepest.param_groups(Net(), roles={"norm": {"lrr": 1.0}})
    with pytest.raises(ValueError, match=r"roles\['norm'\] cannot set 'role'"):
        steepest.param_groups(Net(), roles={"norm": {"role": "bias"}})
    with pytest.raises(TypeError, match="split_fused must be True or False, got 1"):
        steepest.param_groups(Net(), split_fused=1)  # pyright: ignore[reportArgumentType]
    assert steepest.param_groups(Net(), roles={"lora_A": {"lr": 1.0}}).roles  # reusable over models


def sizes(model: nn.Module, overrides=(), **kwargs) -> dict[str, tuple]:
    groups = steepest.param_groups(model, overrides, **kwargs)
    return {
        name: (g["split_sizes"], g.get("split_dim", 0))
        for g in groups
        for name, _ in g["params"]
        if "split_sizes" in g
    }


def test_where_parameters_are_cut():
    model = nn.ModuleDict({"qkv": nn.Linear(8, 16, bias=False), "q": nn.Linear(8, 8), "o": nn.Linear(8, 8)})
    cuts = {
        "qkv": {"split_sizes": [8, 4, 4], "num_heads": 4},
        "q.weight": {"num_heads": 2},
        "o.weight": {"split_sizes": 4, "split_dim": 1},
    }
    assert sizes(model, cuts) == {
        "qkv.weight": ((2,) * 8, 0),
        "q.weight": ((4, 4), 0),
        "o.weight": ((2, 2, 2, 2), 1),
    }
    assert sizes(model, {"qkv": {"split_sizes": 2}}) == {"qkv.weight": ((8, 8), 0)}
    assert sizes(model, {"qkv": {"split_sizes": 1}}) == {}
    experts = nn.ParameterDict({"gate_up": nn.Parameter(torch.zeros(3, 8, 4))})
    assert sizes(experts, {"gate_up": {"split_sizes": 2}}) == {"gate_up": ((4, 4), 0)}


def test_projections_of_a_known_layout():
    class Conv1D(nn.Module):
        """Stored as transformers stores GPT-2's: inputs first."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 12))

    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(4, 2),
            "rnn": nn.LSTM(4, 3),
            "gru": nn.GRU(4, 3),
            "qkv": nn.Linear(4, 12),
            "c_attn": Conv1D(),
            "gate_up_proj": nn.Linear(4, 10),
            "query_key_value": nn.Linear(4, 12),
            "plain": nn.Linear(4, 12),
        }
    )
    assert sizes(model) == {}
    assert sizes(model, split_fused=True) == {
        "attention.in_proj_weight": ((4, 4, 4), 0),
        "rnn.weight_ih_l0": ((3,) * 4, 0),
        "rnn.weight_hh_l0": ((3,) * 4, 0),
        "gru.weight_ih_l0": ((3,) * 3, 0),
        "gru.weight_hh_l0": ((3,) * 3, 0),
        "qkv.weight": ((4, 4, 4), 0),
        "c_attn.weight": ((4, 4, 4), 1),
        "gate_up_proj.weight": ((5, 5), 0),
    }
    assert sizes(model, {"qkv": {"split_sizes": 1}}, split_fused=True).keys() >= {"c_attn.weight"}
    assert "qkv.weight" not in sizes(model, {"qkv.weight": {"split_sizes": 1}}, split_fused=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split_sizes": 5}, ValueError, r"split_sizes=5 does not cut 'h.0.attn.weight' of shape \(18, 6\)"),
        ({"split_sizes": [6, 6]}, ValueError, r"\[6, 6\] sum to 12, not to the side of .* rows are 18"),
        ({"split_sizes": "3"}, TypeError, "split_sizes must be a number of equal parts or a list of sizes"),
        ({"split_sizes": [6.0, 12.0]}, TypeError, "split_sizes must be a number of equal parts or a list"),
        ({"num_heads": 4}, ValueError, "num_heads=4 does not fit"),
        ({"num_heads": 0}, TypeError, "num_heads must be an integer >= 1, got 0"),
        (
            {"split_sizes": 3, "split_dim": 2},
            ValueError,
            r"split_dim must be 0 \(rows\) or 1 \(columns\), got 2",
        ),
        ({"split_size": 3}, TypeError, "unknown option 'split_size'; did you mean 'split_sizes'"),
    ],
)
def test_cuts_that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        steepest.param_groups(Net(), {"h.0.attn.weight": options})
    with pytest.raises(ValueError, match=r"'h.0.attn.bias' cuts nothing: all it takes, such as"):
        steepest.param_groups(Net(), {"h.0.attn.bias": {"num_heads": 3}})
