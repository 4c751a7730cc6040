"""LoRA with peft: the factors of adapters by Muon, each kind at its own rate, by hand and in the Trainer."""

import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import steepest
from steepest.integrations.hf import for_trainer

TEXT = "Sing, goddess, the anger of Peleus' son Achilleus and its devastation. " * 8
codes = [ord(letter) for letter in TEXT]
dataset = [{"input_ids": codes[i : i + 32], "labels": codes[i : i + 32]} for i in range(0, 480, 2)]
LR, ROLES = 0.02, {"lora_B": {"lr": 0.1}}  # B starts at zero, and may move faster


def adapted():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    return get_peft_model(LlamaForCausalLM(config), lora)


model = adapted()
groups = steepest.param_groups(model, roles=ROLES)
optimizer = steepest.Muon(groups, lr=LR)
print(groups.table(optimizer))
losses = []
for step in range(20):
    rows = torch.tensor([row["input_ids"] for row in dataset[8 * step : 8 * step + 8]])
    loss = model(input_ids=rows, labels=rows).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"plain loop: loss {losses[0]:.3f} at first, {losses[-1]:.3f} at the end")
assert losses[-1] < losses[0] - 0.15

with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        max_steps=20,
        logging_steps=5,
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=adapted(),
        args=arguments,
        train_dataset=dataset,
        optimizer_cls_and_kwargs=for_trainer("Muon", lr=LR, roles=ROLES),
    )
    trainer.train()
logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
assert logged[-1] < logged[0] - 0.05
