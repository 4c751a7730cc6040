"""Roles in the models people use: transformers, peft, timm."""

import re

import pytest
import torch
from torch import nn

import steepest

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
transformers = pytest.importorskip("transformers")
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def by_role(model: nn.Module, overrides=(), **kwargs) -> dict[str, set[str]]:
    """Names by role, numbers of blocks as stars."""
    found: dict[str, set[str]] = {}
    for name, role in steepest.param_groups(model, overrides, **kwargs).roles.items():
        found.setdefault(role, set()).add(re.sub(r"\.\d+(?=\.)", ".*", name))
    return found


def weights(prefix: str, *names: str) -> set[str]:
    return {f"{prefix}.{name}.weight" for name in names}


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=16, **TOKENS)
    return transformers.GPT2LMHeadModel(config)


def test_gpt2_ties_its_head_and_stores_matrices_transposed():
    found = by_role(gpt2())
    assert found["embedding"] == weights("transformer", "wte", "wpe")
    assert "head" not in found
    assert found["matrix"] == weights(
        "transformer.h.*", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"
    )
    cut = {g["split_sizes"]: g for g in steepest.param_groups(gpt2(), split_fused=True) if "split_sizes" in g}
    assert list(cut) == [(16, 16, 16)]
    assert cut[16, 16, 16]["split_dim"] == 1
    assert [re.sub(r"\d", "*", name) for name, _ in cut[16, 16, 16]["params"]] == [
        "transformer.h.*.attn.c_attn.weight"
    ] * 2


def test_llama():
    config = transformers.LlamaConfig(num_key_value_heads=2, **SMALL, **TOKENS)
    found = by_role(transformers.LlamaForCausalLM(config))
    assert found == {
        "embedding": {"model.embed_tokens.weight"},
        "head": {"lm_head.weight"},
        "matrix": weights(
            "model.layers.*",
            *(f"self_attn.{n}_proj" for n in "qkvo"),
            *(f"mlp.{n}_proj" for n in ("gate", "up", "down")),
        ),
        "norm": weights("model", "layers.*.input_layernorm", "layers.*.post_attention_layernorm", "norm"),
    }


def test_mixtral_stacks_its_experts():
    config = transformers.MixtralConfig(num_key_value_heads=2, num_local_experts=4, **SMALL, **TOKENS)
    groups = steepest.param_groups(transformers.MixtralForCausalLM(config))
    [experts] = [g for g in groups if g["role"] == "expert"]
    assert experts["batch_dims"] == 1
    assert {p.ndim for _, p in experts["params"]} == {3}
    muon = steepest.Muon(groups)
    [own] = [g for g in muon.param_groups if g["role"] == "expert"]
    assert own["rule"] == "matrix"


def test_classifiers_have_the_last_layer_as_head():
    config = transformers.RobertaConfig(**SMALL, **TOKENS)
    found = by_role(transformers.RobertaForSequenceClassification(config))
    assert found["head"] == {"classifier.out_proj.weight"}
    assert "classifier.dense.weight" in found["matrix"]
    assert len(found["embedding"]) == 3
    body = by_role(transformers.RobertaModel(config))
    assert "head" not in body
    assert "pooler.dense.weight" in body["matrix"]


def test_vision_transformer():
    config = transformers.ViTConfig(image_size=32, patch_size=16, **SMALL)
    found = by_role(transformers.ViTForImageClassification(config))
    assert found["conv"] == {"vit.embeddings.patch_embeddings.projection.weight"}
    assert found["embedding"] == {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"}
    assert found["head"] == {"classifier.weight"}


def test_t5_and_its_relative_positions():
    config = transformers.T5Config(d_model=16, d_ff=32, d_kv=4, num_layers=1, num_heads=4, vocab_size=60)
    found = by_role(transformers.T5ForConditionalGeneration(config))
    assert "head" not in found or found["head"] == {"lm_head.weight"}
    assert {n for n in found["embedding"] if n.endswith("relative_attention_bias.weight")}
    assert all(n.endswith("layer_norm.weight") for n in found["norm"])


@pytest.mark.parametrize("name", ["Muon", "ANDI", "SOAP", "AdamW"])
def test_gpt2_learns_with_routed_groups(name):
    torch.manual_seed(0)
    model = gpt2()
    groups = steepest.param_groups(model)
    rates = {"Muon": 0.02, "ANDI": 0.05, "SOAP": 3e-3, "AdamW": 3e-3}
    hybrid = {"aux": {"lr": 3e-3}} if name in ("Muon", "SOAP") else {}
    optimizer = getattr(steepest, name)(groups, lr=rates[name], **hybrid)
    tokens = torch.randint(0, 60, (4, 12))
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_lora_factors_of_peft():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, use_dora=True)
    model = peft.get_peft_model(gpt2(), config)
    groups = steepest.param_groups(model, roles={"lora_B": {"lr": 0.1}})
    roles = groups.roles
    assert set(roles.values()) == {"lora_A", "lora_B", "vector"}
    assert all(("lora_A" in name) == (role == "lora_A") for name, role in roles.items())
    assert all(("magnitude" in name) == (role == "vector") for name, role in roles.items())
    optimizer = steepest.Muon(groups, lr=0.02)
    assert {g["role"]: (g["rule"], g["lr"]) for g in optimizer.param_groups} == {
        "lora_A": ("matrix", 0.02),
        "lora_B": ("matrix", 0.1),
        "vector": ("aux", 1e-3),
    }
    tokens = torch.randint(0, 60, (4, 12))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(2):  # factors B start at zero, so that A has no gradient in the first step
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(roles)


def test_a_classifier_beside_adapters_is_the_head():
    peft = pytest.importorskip("peft")
    model = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**SMALL, **TOKENS))
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    found = by_role(peft.get_peft_model(model, config))
    assert found["head"] == {"base_model.model.classifier.modules_to_save.default.out_proj.weight"}
    assert found["matrix"] == {"base_model.model.classifier.modules_to_save.default.dense.weight"}
    assert {"lora_A", "lora_B", "bias"} <= found.keys()


def timm_model(name: str, **kwargs) -> nn.Module:
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError):  # timm needs a torchvision built for the torch that is here
        pytest.skip("timm cannot be imported")
    return timm.create_model(name, pretrained=False, num_classes=7, **kwargs)


def test_timm_vision_transformer():
    model = timm_model("vit_tiny_patch16_224", img_size=32, depth=2)
    found = by_role(model)
    assert found["head"] == {"head.weight"}
    assert found["embedding"] == {"cls_token", "pos_embed"}
    assert found["conv"] == {"patch_embed.proj.weight"}
    assert found["matrix"] == weights("blocks.*", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    groups = steepest.param_groups(model, split_fused=True)
    assert {n for g in groups if "split_sizes" in g for n, _ in g["params"]} == {
        "blocks.0.attn.qkv.weight",
        "blocks.1.attn.qkv.weight",
    }
    spared = {n for g in groups if g.get("weight_decay") == 0.0 for n, _ in g["params"]}
    assert {"cls_token", "pos_embed", "blocks.0.norm1.weight", "head.bias"} <= spared


def test_timm_convolutions():
    found = by_role(timm_model("convnext_atto", depths=(1, 1, 1, 1)))
    assert found["head"] == {"head.fc.weight"}
    assert all(name.endswith(("conv_dw.weight", "gamma")) for name in found["vector"])
    resnet = by_role(timm_model("resnet18"))
    assert resnet.keys() == {"conv", "norm", "head", "bias"}
    assert (resnet["head"], resnet["bias"]) == ({"fc.weight"}, {"fc.bias"})
