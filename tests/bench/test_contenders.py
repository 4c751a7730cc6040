from __future__ import annotations

import re

import pytest
import torch

from bench.tiny import TINY
from steepest.bench import selection
from steepest.bench.contenders import FAMILIES, REFERENCE, BenchError
from steepest.bench.selection import LEFT_OUT, families, select
from steepest.bench.sets import SETS, Gradients
from steepest.catalogue import methods

LIBRARY = select(["all"], ["none"])[0]
PEERS = [row for row in select(["all"], ["default"])[0] if row.library != "steepest"]


def test_every_public_method_is_in_one_family_or_left_out_for_a_reason() -> None:
    named = [name for family in FAMILIES.values() for name in family]
    assert sorted([*named, *LEFT_OUT]) == sorted(methods())


@pytest.mark.parametrize("row", [*LIBRARY, *PEERS], ids=lambda row: row.name)
def test_every_row_takes_steps_on_vectors_matrices_convolutions_and_embeddings(row) -> None:
    gradients = Gradients(TINY)
    params = gradients.parameters(flat=row.flat)
    stepper = row.build(params)
    for i in range(row.cycle + 2):
        gradients.write(params, i)
        stepper.step()
    for p, q in zip(params.all, gradients.parameters(flat=row.flat).all, strict=True):
        assert torch.isfinite(p).all()
        assert not torch.equal(p, q)
    assert stepper.states()


def test_the_reference_is_always_there_and_first() -> None:
    rows, _ = select(["ANDI"], ["none"])
    assert [row.name for row in rows] == [REFERENCE, "steepest ANDI", "steepest ANDI unchecked"]
    grouped = families(select(["muon", "SOAP"], ["torch"])[0])
    assert {family: [row.name for row in members] for family, members in grouped.items()} == {
        "spectral": [REFERENCE, "steepest Muon", "torch Muon"],
        "soap": [REFERENCE, "steepest SOAP"],
    }


def test_a_peer_that_is_not_installed_is_told(monkeypatch) -> None:
    monkeypatch.setattr(selection, "find_spec", lambda name: None if name == "heavyball" else object())
    rows, missing = select(["SOAP"], ["default"])
    assert missing == {"heavyball": "it is not installed"}
    assert [row.library for row in rows] == ["torch", "steepest", "pytorch-optimizer"]


def test_all_names_what_cannot_be_measured() -> None:
    assert select(["all"], ["none"])[1] == LEFT_OUT


@pytest.mark.parametrize(
    ("optimizers", "peers", "message"),
    [
        (["Mun"], ["none"], "--optimizers: unknown method 'Mun'; did you mean 'Muon'?"),
        (["zzzz"], ["none"], "--optimizers: unknown method 'zzzz'; choose from ANDI, "),
        (["kfac"], ["none"], "kfac cannot be measured: it is built from a model's layers"),
        (["ANDI"], ["heavybal"], "--peers: unknown peer 'heavybal'; did you mean 'heavyball'?"),
    ],
)
def test_unknown_names_are_refused(optimizers, peers, message) -> None:
    with pytest.raises(BenchError, match=re.escape(message)):
        select(optimizers, peers)


def test_what_preconditions_sides_of_any_length_is_left_out_of_long_ones() -> None:
    named = {row.name: row for row in LIBRARY}
    assert named["steepest SPlus"].obstacle(SETS["gpt"]) is None
    assert "one of 4608" in (named["steepest SPlus"].obstacle(SETS["resnet"]) or "")
    assert named["steepest SOAP"].obstacle(SETS["resnet"]) is None
