"""Hugging Face's Trainer with Muon for the matrices and AdamW for the rest, stopped and resumed."""

import codecs
import contextlib
import io
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from steepest.integrations.hf import for_trainer

with contextlib.redirect_stdout(io.StringIO()):
    import this  # a text that every Python has, in ROT13

codes = [min(ord(letter), 127) for letter in codecs.decode(this.s, "rot13")]
windows = [codes[i : i + 32] for i in range(0, len(codes) - 32, 2)]
dataset = [{"input_ids": window, "labels": window} for window in windows]


def trainer(folder: str) -> Trainer:
    set_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    arguments = TrainingArguments(
        folder,
        max_steps=40,
        per_device_train_batch_size=16,
        warmup_steps=5,
        lr_scheduler_type="cosine",
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=10,
        save_steps=20,
        report_to="none",
        disable_tqdm=True,
    )
    chosen = for_trainer("Muon", lr=0.02, weight_decay=0.1, aux={"lr": 3e-3})
    model = LlamaForCausalLM(config)
    return Trainer(model=model, args=arguments, train_dataset=dataset, optimizer_cls_and_kwargs=chosen)


def losses(run: Trainer) -> list[float]:
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


with tempfile.TemporaryDirectory() as folder:
    whole = trainer(folder)
    whole.train()
    resumed = trainer(folder)
    resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-20")

print("losses", [round(loss, 3) for loss in losses(whole)])
print("resumed to the same losses:", losses(resumed) == losses(whole))
assert losses(whole)[-1] < 2.6
if not torch.cuda.is_available():  # kernels of CUDA may add up in another order each time
    assert losses(resumed) == losses(whole)
