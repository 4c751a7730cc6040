"""What each parameter of a model is taken for."""

import copy
import pickle

import pytest
import torch
from torch import nn

import steepest
from steepest.roles import AUXILIARY, ROLES


def roles(model: nn.Module) -> dict[str, str]:
    return steepest.param_groups(model).roles


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width, bias=False)
        self.gamma = nn.Parameter(torch.ones(width))


class Net(nn.Module):
    """A transformer with a table of its own, experts, and a head that may be tied."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 6)
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 6))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 6))
        self.blocks = nn.ModuleList([Block(6), Block(6)])
        self.experts = nn.Parameter(torch.randn(3, 6, 6))
        self.temperature = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight


def test_a_transformer():
    found = roles(Net())
    first = {name: role for name, role in found.items() if not name.startswith("blocks.1")}
    assert first == {
        "tokens.weight": "embedding",
        "pos_embed": "embedding",
        "cls_token": "embedding",
        "blocks.0.attention.in_proj_weight": "matrix",
        "blocks.0.attention.in_proj_bias": "bias",
        "blocks.0.attention.out_proj.weight": "matrix",
        "blocks.0.attention.out_proj.bias": "bias",
        "blocks.0.norm.weight": "norm",
        "blocks.0.norm.bias": "norm",
        "blocks.0.up.weight": "matrix",
        "blocks.0.up.bias": "bias",
        "blocks.0.down.weight": "matrix",
        "blocks.0.gamma": "vector",
        "experts": "expert",
        "temperature": "vector",
        "head.weight": "head",
    }


def test_every_trainable_parameter_is_in_one_group_and_frozen_ones_in_none():
    model = Net(tied=True)
    model.blocks[0].requires_grad_(False)
    groups = steepest.param_groups(model)
    claimed = [p for group in groups for _, p in group["params"]]
    assert len(claimed) == len({id(p) for p in claimed})
    assert {id(p) for p in claimed} == {id(p) for p in model.parameters() if p.requires_grad}
    assert [name for group in groups for name, _ in group["params"] if name.startswith("blocks.0")] == []


def test_a_tied_head_is_an_embedding_claimed_once():
    model = Net(tied=True)
    found = roles(model)
    assert found["tokens.weight"] == "embedding"
    assert "head.weight" not in found
    assert "(= head.weight)" in str(steepest.param_groups(model))
    # any of its names will do in an override
    [group] = [g for g in steepest.param_groups(model, {"head": {"lr": 0.5}}) if g.get("lr") == 0.5]
    assert [name for name, _ in group["params"]] == ["tokens.weight"]


def test_convolutions():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ConvTranspose2d(8, 4, 2),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    groups = steepest.param_groups(model)
    assert [groups.roles[f"{i}.weight"] for i in (0, 1, 2, 3, 5)] == [
        "conv",
        "norm",
        "vector",
        "conv",
        "head",
    ]
    decay = {n: g.get("weight_decay") for g in groups for n, _ in g["params"]}
    assert decay["2.weight"] is None  # kernels decay, gains and biases do not
    assert [decay[name] for name in ("0.bias", "1.weight", "1.bias")] == [0.0, 0.0, 0.0]


def test_recurrent_and_unusual_parameters():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 3)
            self.A_log = nn.Parameter(torch.zeros(4, 3))
            self.gain = nn.Parameter(torch.ones(4, 1, 1))
            self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
            self.kernel = nn.Parameter(torch.zeros(4, 3, 2, 2))
            self.learned = nn.Parameter(torch.zeros(1, 4, 3))
            self.mixing = nn.Parameter(torch.zeros(4, 4))

    found = roles(Odd())
    assert {found[f"rnn.weight_{k}_l0"] for k in ("ih", "hh")} == {"matrix"}
    assert {found[f"rnn.bias_{k}_l0"] for k in ("ih", "hh")} == {"bias"}
    assert (found["A_log"], found["gain"]) == ("vector", "vector")
    assert (found["relative_position_bias_table"], found["learned"]) == ("embedding", "embedding")
    assert (found["kernel"], found["mixing"]) == ("conv", "matrix")


def test_adapters_by_the_names_of_peft():
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_layer = nn.Linear(6, 6).requires_grad_(False)
            self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
            self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 6, bias=False)})
            self.lora_embedding_A = nn.ParameterDict({"default": nn.Parameter(torch.zeros(2, 9))})
            self.lora_magnitude_vector = nn.ParameterDict({"default": nn.Parameter(torch.ones(6))})

    assert roles(Adapted()) == {
        "lora_A.default.weight": "lora_A",
        "lora_B.default.weight": "lora_B",
        "lora_embedding_A.default": "lora_A",
        "lora_magnitude_vector.default": "vector",
    }


def test_heads_are_told_by_the_model_then_by_name_then_by_place():
    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out_map = nn.Linear(4, 9)
            self.last = nn.Linear(4, 4)

        def get_output_embeddings(self) -> nn.Module | None:
            return self.out_map

    class Silent(Told):
        def get_output_embeddings(self):
            return None

    assert roles(Told())["out_map.weight"] == "head"
    assert roles(Told())["last.weight"] == "matrix"
    assert "head" not in roles(Silent()).values()
    two = nn.ModuleDict(
        {"body": nn.Linear(4, 4), "classifier": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))}
    )
    assert [roles(two)[f"{n}.weight"] for n in ("body", "classifier.0", "classifier.1")] == [
        "matrix",
        "matrix",
        "head",
    ]
    many = nn.ModuleDict(
        {"body": nn.Linear(4, 4), "heads": nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 3)])}
    )
    assert [roles(many)[f"heads.{i}.weight"] for i in (0, 1)] == ["head", "head"]
    inside = nn.Sequential(nn.ModuleDict({"head": nn.Linear(3, 3)}), nn.Linear(3, 3))
    assert roles(inside)["0.head.weight"] == "matrix"


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_a_head_told_by_its_place_is_noted():
    perceptron = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    groups = steepest.param_groups(perceptron)
    assert groups.roles["2.weight"] == "head"
    assert groups.notes == (
        "'2.weight' is taken for the output head because it is the last layer; if it is not one, override it "
        "with {'2.weight': {'role': 'matrix'}}",
    )
    again = steepest.param_groups(perceptron, {"2.weight": {"role": "matrix"}})
    assert (again.roles["2.weight"], again.notes) == ("matrix", ())
    blocks = nn.ModuleList([Block(4), Block(4)])
    assert "head" not in roles(blocks).values()
    assert "head" not in roles(nn.Linear(3, 2)).values()
    assert "head" not in roles(nn.Transformer(4, 2, 1, 1, 8)).values()


def test_embeddings_that_only_call_themselves_so():
    class VocabParallelEmbedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_embeddings = 9
            self.weight = nn.Parameter(torch.zeros(9, 4))

    assert roles(nn.ModuleDict({"wte": VocabParallelEmbedding()}))["wte.weight"] == "embedding"


def test_what_a_model_wants_kept_from_decay():
    class Timm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(1, 3, 4))
            self.other = nn.Parameter(torch.zeros(3, 4))

        def no_weight_decay(self):
            return {"pos_embed"}

    decay = {n: g.get("weight_decay") for g in steepest.param_groups(Timm()) for n, _ in g["params"]}
    assert decay == {"pos_embed": 0.0, "other": None}


def test_parts_that_wrappers_put_into_names_need_not_be_written():
    class Wrapper(nn.Module):
        """Names its module as ``torch.compile`` does."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self._orig_mod = module

    compiled = Wrapper(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
    [group] = [g for g in steepest.param_groups(compiled, {"0.weight": {"lr": 0.5}}) if g.get("lr") == 0.5]
    assert [name for name, _ in group["params"]] == ["_orig_mod.0.weight"]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ([nn.Parameter(torch.zeros(2))], TypeError, "model must be a torch.nn.Module, got list; parameters"),
        (nn.ReLU(), ValueError, "ReLU has no parameter that requires a gradient"),
        (nn.Sequential(nn.LazyLinear(3)), ValueError, "'0.weight' has no shape yet: run a batch"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_models_without_parameters_to_route(model, error, message):
    with pytest.raises(error, match=message):
        steepest.param_groups(model)


def test_hybrids_send_roles_to_their_auxiliary_rule_and_others_take_all():
    groups = steepest.param_groups(Net())
    muon = steepest.Muon(groups, lr=0.1, weight_decay=0.3, aux={"lr": 0.01, "weight_decay": 0.2})
    for group in muon.param_groups:
        assert group["rule"] == ("aux" if group["role"] in AUXILIARY else "matrix")
        assert group["lr"] == (0.01 if group["rule"] == "aux" else 0.1)
        spared = group["role"] in ("norm", "bias", "vector")
        assert group["weight_decay"] == (0.0 if spared else 0.2 if group["rule"] == "aux" else 0.3)
    assert {g["role"] for g in muon.param_groups} == set(ROLES) - {"conv", "lora_A", "lora_B"}
    [expert] = [g for g in muon.param_groups if g["role"] == "expert"]
    assert expert["batch_dims"] == 1
    for build in (steepest.ANDI, steepest.AdamW, torch.optim.AdamW, torch.optim.SGD):
        built = build(groups, lr=0.1)
        assert [g["role"] for g in built.param_groups] == [g["role"] for g in groups]
        assert all("rule" not in g for g in built.param_groups)


def test_a_role_in_a_group_written_by_hand():
    head, hidden = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(3, 3))
    muon = steepest.Muon([{"params": [head], "role": "head"}, {"params": [hidden], "role": "matrix"}])
    assert [g["rule"] for g in muon.param_groups] == ["aux", "matrix"]
    kept = steepest.Muon([{"params": [head], "role": "head", "rule": "matrix"}])
    assert kept.param_groups[0]["rule"] == "matrix"
    with pytest.raises(ValueError, match=r"role must be one of 'matrix', 'conv'.* got 'hed'"):
        steepest.Muon([{"params": [head], "role": "hed"}])


def test_one_plan_builds_many_optimizers_and_survives_copies():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    groups = steepest.param_groups(model)
    torch.optim.AdamW(groups, lr=0.5)
    assert all("lr" not in group and isinstance(group["params"][0], tuple) for group in groups)
    for twin in (copy.deepcopy(groups), pickle.loads(pickle.dumps(groups))):
        assert twin.roles == groups.roles
        assert str(twin) == str(groups)
    groups[0]["lr"] = 0.7
    assert steepest.Muon(groups, lr=0.1).param_groups[0]["lr"] == 0.7


def test_checkpoints_of_routed_optimizers_resume_bitwise():
    def build():
        torch.manual_seed(0)
        model = Net()
        return model, steepest.Muon(steepest.param_groups(model, split_fused=True), lr=0.1)

    def train(model, optimizer, seeds):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    (first, one), (second, two) = build(), build()
    train(first, one, range(4))
    train(second, two, range(2))
    third, three = build()
    third.load_state_dict(second.state_dict())
    three.load_state_dict(two.state_dict())
    train(third, three, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters(), strict=True))
