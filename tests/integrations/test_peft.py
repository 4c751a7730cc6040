"""LoRA adapters of peft, in a plain loop and in Hugging Face's Trainer."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import steepest
from steepest.integrations.hf import for_trainer

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from integrations.language import BATCH, batches, gpt2, windows  # noqa: E402 - needs transformers

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]
STEPS = 8
CHOICES = {
    "Muon": {"lr": 0.02, "roles": {"lora_B": {"lr": 0.1}}},
    "ANDI": {"lr": 0.1, "roles": {"lora_A": {"threshold": 2}, "lora_B": {"threshold": 2}}},
}


def adapted():
    torch.manual_seed(1)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True
    )
    return peft.get_peft_model(gpt2(), config)


def routed(model, name):
    options = dict(CHOICES[name])
    groups = steepest.param_groups(model, roles=options.pop("roles"))
    return getattr(steepest, name)(groups, **options)


def by_hand(model, optimizer, bf16=False):
    schedule = transformers.get_constant_schedule(optimizer)
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


@pytest.mark.parametrize("name", CHOICES)
def test_a_plain_loop_trains_the_factors_alone(name):
    model = adapted()
    optimizer = routed(model, name)
    assert {g["role"] for g in optimizer.param_groups} == {"lora_A", "lora_B"}
    assert not any(g.get("rule") == "aux" for g in optimizer.param_groups)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = by_hand(model, optimizer)
    assert losses[-1] < losses[0] - 0.1
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "lora_" in name}


@pytest.mark.parametrize(("name", "bf16"), [("Muon", False), ("Muon", True), ("ANDI", True)])
def test_the_trainer_gives_the_same_numbers_and_resumes(tmp_path, name, bf16):
    def trainer(folder):
        args = transformers.TrainingArguments(
            str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            train_sampling_strategy="sequential",
            lr_scheduler_type="constant",
            logging_steps=1,
            save_steps=5,
            report_to="none",
            use_cpu=True,
            bf16=bf16,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        return transformers.Trainer(
            model=adapted(),
            args=args,
            train_dataset=windows(),
            optimizer_cls_and_kwargs=for_trainer(name, **CHOICES[name]),
        )

    run = trainer(tmp_path)
    run.train()
    model = adapted()
    assert [e["loss"] for e in run.state.log_history if "loss" in e] == by_hand(
        model, routed(model, name), bf16
    )
    resumed = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    for one in (run.model, resumed.model):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), model.parameters(), strict=True))
