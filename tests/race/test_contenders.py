from __future__ import annotations

import pytest
import race_toys
import torch

from steepest import ANDI, Muon
from steepest.catalogue import methods
from steepest.race.contenders import DEFAULTS, parse_contender, parse_contenders
from steepest.race.records import RaceError
from steepest.race.task_text import load_task


def test_default_race_is_the_six_with_the_reference_first() -> None:
    names = [c.name for c in parse_contenders("default")]
    assert names == ["AdamW", "Muon", "ANDI", "MuAdam", "MuAdamSANIA", "SGD"] == list(DEFAULTS)
    assert parse_contender("AdamW").load() is torch.optim.AdamW
    assert parse_contender("andi").load() is ANDI
    assert parse_contender("SGD").kwargs == {"momentum": 0.9}


def test_the_reference_always_races_and_doubles_race_once() -> None:
    assert [c.name for c in parse_contenders("Muon,Muon")] == ["AdamW", "Muon"]
    named = parse_contenders("torch.optim:SGD, SGD(momentum=0.8, nesterov=True), SGD")
    assert [c.name for c in named] == [
        "AdamW",
        "SGD",
        "SGD(momentum=0.8, nesterov=True)",
        "torch.optim:SGD(momentum=0.9)",
    ]
    assert named[2].kwargs == {"momentum": 0.8, "nesterov": True}


def test_arguments_are_literals_and_survive_the_way_to_a_worker() -> None:
    contender = parse_contender("MuAdam(betas=(0.9, 0.95), scale=None)")
    assert contender.kwargs == {"betas": (0.9, 0.95), "scale": None}
    assert parse_contender(contender.text).kwargs == contender.kwargs
    assert parse_contender(contender.text).target == "steepest:MuAdam"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Moun", "unknown optimizer 'Moun'; did you mean 'Muon'?"),
        ("Muon(momentun=0.9)", "unknown argument 'momentun'; did you mean 'momentum'?"),
        ("Muon(lr=0.1)", "--lr-grid"),
        ("SGD(momentum=print())", "cannot read optimizer"),
        ("SGD(0.9)", "cannot read optimizer"),
        ("SGD(momentum=0.9", "cannot read optimizer"),
        ("nowhere:Thing", "cannot load optimizer 'nowhere:Thing'"),
        ("race_toys:Inline", "not a subclass of torch.optim.Optimizer"),
    ],
)
def test_what_cannot_race_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(RaceError) as caught:
        parse_contenders(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_of_ones_own_starts_at_its_default_rate() -> None:
    contender = parse_contender("race_toys:RaisesInStep")
    assert (contender.name, contender.start_lr) == ("RaisesInStep", 0.1)


def test_a_hybrid_gets_embeddings_and_heads_as_auxiliary() -> None:
    network = race_toys.model(race_toys.data())
    optimizer = parse_contender("Muon").build(network, race_toys.task, lr=0.1, aux_lr=0.003)
    assert isinstance(optimizer, Muon)
    rules = {
        name: (group["rule"], group["lr"])
        for name, p in network.named_parameters()
        for group in optimizer.param_groups
        if any(p is q for q in group["params"])
    }
    assert rules == {
        "0.weight": ("matrix", 0.1),
        "0.bias": ("aux", 0.003),
        "2.weight": ("aux", 0.003),
        "2.bias": ("aux", 0.003),
    }
    plain = parse_contender("SGD").build(network, race_toys.task, lr=0.1, aux_lr=None)
    assert [len(group["params"]) for group in plain.param_groups] == [4]


def test_all_stands_for_every_method_and_each_can_be_built():
    task = load_task("digits")
    contenders = parse_contenders("all")
    names = [contender.name for contender in contenders]
    assert set(methods()) - {"Steepest"} <= set(names)
    assert len(names) == len(set(names))
    for contender in contenders:
        model = task.model(task.data())
        optimizer = contender.build(model, task, 1e-3, 1e-2)
        held = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        if contender.is_hybrid():
            heads = {id(p) for name, p in model.named_parameters() if task.is_auxiliary(name)}
            assert heads
            for group in optimizer.param_groups:
                if heads & {id(p) for p in group["params"]}:
                    assert (group["rule"], group["lr"]) == ("aux", 1e-2)
