"""Hugging Face's Trainer: the plain loop's numbers, exact resume, mixed precision, messages."""

import copy
import doctest
import re
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import steepest
from steepest.integrations import hf
from steepest.integrations.hf import for_trainer

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from integrations.language import BATCH, batches, gpt2, windows  # noqa: E402 - needs transformers

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]
STEPS = 12
MUON = {"lr": 0.02, "weight_decay": 0.1, "aux": {"lr": 3e-3}}


def arguments(folder, **others):
    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "train_sampling_strategy": "sequential",
        "warmup_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(str(folder), **{**settings, **others})


def trainer(folder, model, **others):
    rest = {key: others.pop(key) for key in ("optimizers", "optimizer_cls_and_kwargs") if key in others}
    return transformers.Trainer(
        model=model,
        args=arguments(folder, **others),
        train_dataset=windows(),
        eval_dataset=windows()[:BATCH],
        **rest,
    )


def losses_of(run):
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def by_hand(model, optimizer, bf16=False):
    """What the Trainer does, written out."""
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 2, STEPS)
    losses = []
    for batch in batches(STEPS):
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("way", ["optimizer_cls_and_kwargs", "optimizers"])
def test_the_numbers_of_a_plain_loop(tmp_path, way, bf16):
    plain, model = gpt2(), gpt2()
    if way == "optimizers":
        given = {way: (steepest.Muon(steepest.param_groups(model), **MUON), None)}
    else:
        given = {way: for_trainer("Muon", **MUON)}
    run = trainer(tmp_path, model, bf16=bf16, **given)
    run.train()
    expected = by_hand(plain, steepest.Muon(steepest.param_groups(plain), **MUON), bf16)
    assert losses_of(run) == expected
    assert expected[-1] < expected[0] - 0.5
    assert same(plain, model)


RESUMED = {
    "Muon": {"chosen": for_trainer("Muon", **MUON), "bf16": True},
    "ANDI": {"chosen": for_trainer("ANDI", lr=0.05)},
    "SOAP": {"chosen": for_trainer("SOAP", lr=3e-3, precondition_frequency=4, aux={"lr": 3e-3})},
    # Saved right after an evaluation, when the weights are the averages.
    "SPlus": {
        "chosen": for_trainer(steepest.SPlus, lr=0.2, precondition_frequency=4),
        "eval_strategy": "steps",
        "eval_steps": 5,
    },
}


@pytest.mark.parametrize("name", RESUMED)
def test_resumes_from_its_checkpoints_to_the_bit(tmp_path, name):
    settings = dict(RESUMED[name])
    settings["optimizer_cls_and_kwargs"] = settings.pop("chosen")
    settings |= {"save_strategy": "steps", "save_steps": 5, "train_sampling_strategy": "random"}
    settings |= {"gradient_accumulation_steps": 2}
    whole = trainer(tmp_path, gpt2(dropout=0.1), **settings)
    whole.train()
    torch.manual_seed(1)  # the state of the generators is the checkpoint's
    resumed = trainer(tmp_path / "resumed", gpt2(dropout=0.1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert len(losses_of(whole)) == STEPS
    assert losses_of(resumed) == losses_of(whole)
    assert same(resumed.model, whole.model)
    assert losses_of(whole)[-1] < losses_of(whole)[0] - 0.2


def test_the_logged_rate_is_the_methods_own(tmp_path):
    run = trainer(tmp_path, gpt2(), max_steps=3, optimizer_cls_and_kwargs=for_trainer("Muon", **MUON))
    run.train()
    assert [entry["learning_rate"] for entry in run.state.log_history[:3]] == [0.0, 0.01, 0.02]
    assert [(g["role"], g["rule"]) for g in run.optimizer.param_groups] == [
        ("matrix", "matrix"),
        ("embedding", "aux"),
        ("norm", "aux"),
        ("bias", "aux"),
    ]


def test_overrides_and_roles_reach_the_model(tmp_path):
    chosen = for_trainer(
        "Muon",
        lr=0.02,
        overrides=[("*.c_attn", {"lr": 0.01})],
        roles={"norm": {"lr": 1e-4}},
        split_fused=True,
    )
    run = trainer(tmp_path, gpt2(), optimizer_cls_and_kwargs=chosen)
    for _ in range(2):  # hyperparameter search builds it again and again
        run.optimizer = None
        groups = run.create_optimizer().param_groups
        told = {(g["role"], g["lr"], g.get("split_sizes")) for g in groups}
        assert ("matrix", 0.01, (32, 32, 32)) in told
        assert ("matrix", 0.02, None) in told
        assert ("norm", 1e-4, None) in told


def test_evaluation_sees_the_averages_of_splus(tmp_path):
    chosen = for_trainer("SPlus", lr=0.1)
    settings = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 3}
    run = trainer(tmp_path, gpt2(), optimizer_cls_and_kwargs=chosen, **settings)
    run.train()
    plain = gpt2()
    optimizer = steepest.SPlus(steepest.param_groups(plain), lr=0.1)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 2, 6)
    told = []
    for step, batch in enumerate(batches(6), 1):
        plain(**batch).loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 3 == 0:
            optimizer.eval()
            with torch.no_grad():
                told.append(plain(**batches(1)[0]).loss.item())
            optimizer.train()
    assert [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry] == told


def test_kfac_gets_the_model(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config)
    chosen = for_trainer("KFAC", lr=0.03, loss_average="batch+sequence", aux={"lr": 3e-3})
    run = trainer(tmp_path, model, optimizer_cls_and_kwargs=chosen)
    run.train()
    assert losses_of(run)[-1] < losses_of(run)[0] - 0.2


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("Moun",), ValueError, "no optimizer is named 'Moun'; did you mean 'Muon'?"),
        ((nn.Linear(2, 2),), TypeError, "optimizer must be a name such as 'Muon' or an optimizer class"),
        ((nn.Linear,), TypeError, "optimizer must be a name such as 'Muon' or an optimizer class"),
    ],
)
def test_wrong_names_are_told(arguments, error, said):
    with pytest.raises(error, match=re.escape(said)):
        for_trainer(*arguments, lr=0.1)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"momentun": 0.9}, TypeError, "did you mean 'momentum'?"),
        ({"learning_rate": 0.02}, TypeError, "did you mean 'lr'?"),
        ({"momentum": 1.5}, ValueError, "momentum must be in [0, 1), got 1.5"),
        ({"aux": {"beta": 0.9}}, TypeError, "did you mean 'betas'?"),
        ({"aux": 1e-3}, TypeError, "aux must be a dict"),
        ({"override": {"*": {}}}, TypeError, "for_trainer got an unknown argument 'override'; did you mean"),
        ({"roles": {"heads": {"lr": 1.0}}}, ValueError, "did you mean 'head'?"),
        ({"split_fused": 1}, TypeError, "split_fused must be True or False, got 1"),
    ],
)
def test_wrong_arguments_are_told_before_training(options, error, said):
    with pytest.raises(error, match=re.escape(said)):
        for_trainer("Muon", **options)


def test_overrides_that_match_nothing_are_told_when_training_begins(tmp_path):
    chosen = for_trainer("Muon", overrides={"*.c_atn": {"lr": 0.01}})
    run = trainer(tmp_path, gpt2(), optimizer_cls_and_kwargs=chosen)
    with pytest.raises(ValueError, match=r"did you mean .*c_attn"):
        run.train()


def test_methods_that_need_the_loss_are_refused():
    with pytest.raises(ValueError, match="AdamSANIA would take its step from the loss"):
        for_trainer("AdamSANIA", lr=1.0, polyak=True)
    for_trainer("AdamSANIA", lr=1e-3)


def test_kfac_takes_no_groups():
    with pytest.raises(ValueError, match="KFAC finds its layers itself"):
        for_trainer("KFAC", lr=0.03, overrides={"*": {"lr": 0.1}})


def test_what_is_given_is_not_changed(tmp_path):
    options = {"lr": 0.02, "aux": {"lr": 3e-3}}
    before = copy.deepcopy(options)
    chosen = for_trainer("Muon", **options)
    trainer(tmp_path, gpt2(), max_steps=1, optimizer_cls_and_kwargs=chosen).train()
    assert options == before


def test_the_example_of_the_docstring_is_true():
    assert doctest.testmod(hf, optionflags=doctest.ELLIPSIS) == doctest.TestResults(failed=0, attempted=3)
