"""timm's registry, with timm's own groups, schedules and checkpoints."""

import importlib
import importlib.util
import re
import runpy
import sys
from argparse import Namespace
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import mktestdocs
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import steepest
from steepest.integrations.timm import register

STAND_INS = Path(__file__).parent / "stand_ins"
ROOT = Path(__file__).parents[2]
STEPS = 6
if importlib.util.find_spec("timm") is None:
    pytest.skip("timm is not installed", allow_module_level=True)


def has_torchvision() -> bool:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):  # RuntimeError: it is there, but built for another torch
        return False
    return True


def load_timm() -> Any:
    """Import the real timm; where torchvision cannot be, beside an empty stand-in for it alone."""
    if has_torchvision():
        return importlib.import_module("timm")
    sys.path.insert(0, str(STAND_INS))
    try:
        return importlib.import_module("timm")
    finally:  # other libraries ask for torchvision to decide what they can do
        sys.path.remove(str(STAND_INS))
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


timm = load_timm()
create = importlib.import_module("timm.optim").create_optimizer_v2
scheduler_class = importlib.import_module("timm.scheduler").CosineLRScheduler
register()


def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=3, num_classes=7
    )


def train(model, optimizer, steps, bf16=False):
    schedule = scheduler_class(optimizer, t_initial=10, warmup_t=2, warmup_lr_init=1e-4, t_in_epochs=False)
    losses = []
    for step in steps:
        schedule.step_update(step)
        generator = torch.Generator().manual_seed(step % 3)
        pictures = torch.randn(8, 3, 32, 32, generator=generator)
        labels = torch.randint(7, (8,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = cross_entropy(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def hand_made(model):
    """ANDI without decay on biases, norms, and what the model names, in timm's order."""
    spared = {n for n, p in model.named_parameters() if p.ndim <= 1} | set(model.no_weight_decay())
    named = dict(model.named_parameters())
    groups = [
        {"params": [p for n, p in named.items() if n in spared], "weight_decay": 0.0},
        {"params": [p for n, p in named.items() if n not in spared], "weight_decay": 0.05},
    ]
    return steepest.ANDI(groups, lr=0.05, threshold=4)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_andi_by_its_name_is_the_andi_built_by_hand(bf16):
    one, other = vit(), vit()
    optimizer = create(one, "andi", lr=0.05, weight_decay=0.05, threshold=4)
    assert type(optimizer) is steepest.ANDI
    losses = train(one, optimizer, range(STEPS), bf16)
    assert losses == train(other, hand_made(other), range(STEPS), bf16)
    assert same(one, other)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("name", "bf16"), [("steepest-muon", False), ("steepest-muon", True), ("andi", True), ("soap", False)]
)
def test_resumes_from_timms_checkpoints_to_the_bit(tmp_path, name, bf16):
    options: dict[str, Any] = {
        "lr": 0.02,
        "param_group_fn": partial(steepest.param_groups, split_fused=False),
    }
    saver_class = importlib.import_module("timm.utils").CheckpointSaver
    resume = importlib.import_module("timm.models").resume_checkpoint
    first = vit()
    optimizer = create(first, name, **options)
    train(first, optimizer, range(3), bf16)
    saver = saver_class(
        first, optimizer, Namespace(model="vit"), checkpoint_dir=tmp_path, recovery_dir=tmp_path
    )
    saver.save_checkpoint(epoch=0)
    rest = train(first, optimizer, range(3, STEPS), bf16)
    second = vit()
    resumed = create(second, name, **options)
    resume(second, str(tmp_path / "last.pth.tar"), optimizer=resumed, log_info=False)
    assert train(second, resumed, range(3, STEPS), bf16) == rest
    assert same(first, second)


def test_roles_decide_what_muon_takes():
    model = vit()
    chosen = partial(steepest.param_groups, split_fused=True)
    optimizer = create(
        model, "steepest-muon", lr=0.02, weight_decay=0.05, param_group_fn=chosen, aux={"lr": 3e-4}
    )
    told = {(g["role"], g["rule"], g["lr"]) for g in optimizer.param_groups}
    assert ("matrix", "matrix", 0.02) in told
    assert ("head", "aux", 3e-4) in told
    assert ("embedding", "aux", 3e-4) in told
    assert {g["split_sizes"] for g in optimizer.param_groups if "split_sizes" in g} == {(48, 48, 48)}
    assert optimizer.defaults["momentum"] == 0.9  # timm's own default


def test_timms_fallback_is_the_auxiliary_rule():
    model = vit()
    options = {"fallback_list": ["head.*"], "fallback_no_weight_decay": True}
    optimizer = create(model, "steepest-muon", lr=0.02, weight_decay=0.05, momentum=0.95, **options)
    rule = {p: g["rule"] for g in optimizer.param_groups for p in g["params"]}
    named = dict(model.named_parameters())
    auxiliary = {name for name, p in named.items() if rule[p] == "aux"}
    assert {"head.weight", "pos_embed", "cls_token", "norm.weight"} <= auxiliary
    assert "blocks.0.attn.qkv.weight" not in auxiliary
    assert optimizer.defaults["momentum"] == 0.95


def test_layer_decay_scales_rates():
    optimizer = create(vit(), "andi", lr=0.1, layer_decay=0.5)
    schedule = scheduler_class(optimizer, t_initial=10)
    schedule.step(0)
    rates = {round(group["lr"] / 0.1, 6) for group in optimizer.param_groups}
    assert {1.0, 0.5, 0.25} <= rates


def test_names_of_timm_stay_timms_unless_asked():
    optim = importlib.import_module("timm.optim")
    registry = importlib.import_module("timm.optim._optim_factory").default_registry
    kept = dict(registry._optimizers)
    assert type(create(vit(), "muon", lr=0.02)) is optim.Muon
    try:
        names = register(replace=True)
        assert {"muon", "adamw", "steepest-muon", "andi"} <= set(names)
        assert type(create(vit(), "muon", lr=0.02)) is steepest.Muon
    finally:
        registry._optimizers.clear()
        registry._optimizers.update(kept)
    assert register() == register()
    assert "muon" not in register()
    assert not any("kfac" in name for name in register())


@pytest.mark.parametrize("name", [name for name in register() if name.startswith("steepest-")])
def test_every_name_builds_from_what_timm_passes(name):
    needed = {"rho": 10.0} if name == "steepest-clippedscion" else {}
    optimizer = create(nn.Linear(3, 2), name, lr=0.1, **needed)
    assert type(optimizer).__name__.lower() == name.removeprefix("steepest-")


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: create(vit(), "andi", treshold=4), TypeError, "did you mean 'threshold'?"),
        (lambda: create(vit(), "andi", lr=-1.0), ValueError, "lr must be in [0, inf), got -1.0"),
        (lambda: create(vit(), "scion", lr=0.1, weight_decay=0.1), ValueError, "Scion has no weight_decay"),
        (lambda: register(replace=1), TypeError, "replace must be True or False, got 1"),  # pyright: ignore
    ],
)
def test_mistakes_are_told(call, error, said):
    with pytest.raises(error, match=re.escape(said)):
        call()


def test_the_example_learns(capsys):
    """``make examples`` leaves it out where torchvision cannot be."""
    runpy.run_path(str(ROOT / "examples/trainers/timm_registry.py"), run_name="__main__")
    assert re.findall(r"(\S+): (\w+), loss", capsys.readouterr().out) == [
        ("andi", "ANDI"),
        ("steepest-muon", "Muon"),
    ]


def test_the_page_runs(capsys):
    blocks = mktestdocs.grab_code_blocks((ROOT / "docs/trainers/timm.md").read_text(), lang="py")
    exec(compile("\n".join(blocks), "timm.md", "exec"), {"__name__": "__main__"})
    assert "32 parameters" in capsys.readouterr().out
