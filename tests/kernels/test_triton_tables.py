"""Tables that are never stale, few launches, state that fits, and where there are kernels."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

pytest.importorskip("triton", reason="Triton is not installed, which the package can do without")

from triton_steps import DEVICE, HYPERS, fused_step, random, start

import steepest.kernels.triton as dispatch
from steepest import ANDI, AdamSANIA, AdamW, HeavyBall, Muon, NormalizedSGD, Spectral
from steepest.kernels.triton import kernel as kernels
from steepest.kernels.triton import tables, triton_kernel
from steepest.kernels.triton.tables import Table, Tiling
from steepest.rule import Rule

GROUP = {"maximize": False}
ROWS = Rule(momentum=HeavyBall())


def rule_of(optimizer_class: type, **settings: object) -> Rule:
    optimizer = optimizer_class([Parameter(torch.zeros(3, 4))], **settings)
    return optimizer.recipe(optimizer.param_groups[0])


def made(
    params: list[Tensor], grads: list[Tensor] | None = None, tiling: Tiling = kernels.CHUNKS[torch.float32]
):
    grads = [p.clone() for p in params] if grads is None else grads
    states = [start(ROWS, p) for p in params]
    of = tables.touched(params, grads, states, "momentum_buffer", None, False)
    return tables.tables(of, 0, tiling, params[0].device)


@pytest.fixture
def recorded(monkeypatch):
    launches = []
    monkeypatch.setattr(kernels, "launch", lambda kernel, programs, **_: launches.append((kernel, programs)))
    return launches


@pytest.mark.parametrize(
    ("rule", "most"),
    [
        (rule_of(ANDI), 8),
        (rule_of(ANDI, threshold=50), 3),
        (rule_of(NormalizedSGD, lr=0.1, momentum=0.9), 3),
        (rule_of(AdamSANIA, lr=0.1), 2),
    ],
)
def test_any_number_of_tensors_is_a_handful_of_launches(rule, most, recorded):
    params = random([(20, 24), (24,), (3, 5), (7, 20, 2)] * 125, torch.float32, 0)
    fused_step(rule, params, [p.clone() for p in params], [start(rule, p) for p in params])
    assert 0 < len(recorded) <= most


def test_rows_of_a_table():
    """Programs, matrices, shapes and addresses of two tensors, the second with gradients elsewhere."""
    params, tiling = random([(40, 300), (5,)], torch.float32, 0), Tiling(16, 128, 8)
    grads = [p.clone() for p in params]
    [table] = made(params, grads, tiling)
    words = table.words.reshape(2, -1).tolist()
    assert [row[:4] for row in words] == [[0, 0, 40, 300], [9, 1, 1, 5]]
    assert [row[5:7] for row in words] == [
        [p.data_ptr(), g.data_ptr()] for p, g in zip(params, grads, strict=True)
    ]
    assert (table.count, table.programs, table.matrices) == (2, 10, 2)


def test_a_table_is_kept_while_addresses_and_shapes_are_the_same():
    params = random([(8, 16), (24,)], torch.float32, 0)
    grads, states = [p.clone() for p in params], [start(ROWS, p) for p in params]

    def table(grads: list[Tensor], params: list[Tensor] = params) -> Table:
        of = tables.touched(params, grads, states, "momentum_buffer", None, False)
        [result] = tables.tables(of, 0, kernels.CHUNKS[torch.float32], params[0].device)
        return result

    first = table(grads)
    assert table(grads) is first
    moved = [grads[0], grads[1].clone()]
    other = table(moved)
    assert other is not first
    assert moved[1].data_ptr() in other.words.tolist()
    assert table(grads) is first
    reshaped = table(grads, [params[0].view(16, 8), params[1]])
    assert reshaped.words.tolist()[2:4] == [16, 8]


def test_words_written_by_value_are_those_of_an_upload():
    """As a CUDA graph holds them; addresses need more bits than a float64 has."""
    words = [0, 7, 2**62 + 1, 2**53 + 1, 140_737_488_355_327] * 50
    assert tables.by_value(words, DEVICE).tolist() == words


def test_wide_accesses_where_every_address_and_row_allows_them():
    flat = torch.zeros(4096, device=DEVICE)
    chunks, tiles = Tiling(0, 256, 256), Tiling(16, 64, 8)
    for param, as_chunks, as_tiles in [
        (flat[:64].view(8, 8), True, True),
        (flat[1:65].view(8, 8), False, False),
        (flat[:40].view(8, 5), True, False),
        (flat[:48].view(12, 4), True, False),
        (flat[:15].view(3, 5), False, False),
    ]:
        aligned = torch.zeros_like(param)
        assert made([param], [aligned], chunks)[0].aligned == as_chunks
        assert made([param], [aligned], tiles)[0].aligned == as_tiles


def test_only_large_tensors_are_kept_apart_from_those_that_forbid_wide_accesses(monkeypatch):
    params = random([(64, 64), (5,)], torch.float32, 0)
    [both] = made(params)
    assert not both.aligned
    monkeypatch.setattr(tables, "WORTH_SPLITTING", 1000)
    apart = made([p.clone() for p in params])
    assert [(t.aligned, t.count, t.programs) for t in apart] == [(True, 1, 2), (False, 1, 1)]


def test_gradients_of_each_dtype_get_a_table():
    params = random([(8, 8), (8,), (8, 2)], torch.bfloat16, 0)
    grads = [params[0].clone(), params[1].float(), params[2].clone()]
    assert [(t.grad_dtype, t.count) for t in made(params, grads)] == [(torch.bfloat16, 2), (torch.float32, 1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("momentum_buffer", torch.zeros(4, 3, dtype=torch.bfloat16, device=DEVICE)),
        ("momentum_buffer", torch.zeros(3, 4, device=DEVICE).T),
        ("momentum_buffer", torch.zeros(4, device=DEVICE)),
        ("step", torch.zeros((), dtype=torch.int64, device=DEVICE)),
    ],
)
def test_state_that_does_not_fit_is_refused_before_anything_changes(name, value):
    """Kernels read by address, so that a wrong dtype would be read as something else."""
    rule = rule_of(ANDI, momentum_init="gradient")
    params = random([(5, 5), (4, 3)], torch.float32, 0)
    before, states = [p.clone() for p in params], [start(rule, p) for p in params]
    states[1][name] = value
    with pytest.raises(RuntimeError, match=rf"state\['{name}'\] must be .* Use fused=False"):
        fused_step(rule, params, [p.clone() for p in params], states)
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))


def test_tensors_without_entries_are_passed_over(recorded):
    params = random([(0, 4), (3, 4)], torch.float32, 0)
    kernel = triton_kernel(ROWS, params[1], GROUP)
    assert kernel is not None
    kernel(params, [p.clone() for p in params], [start(ROWS, p) for p in params], HYPERS)
    assert [programs for _, programs in recorded] == [1, 1, 1]
    kernel(params[:1], params[:1], [start(ROWS, params[0])], HYPERS)
    assert len(recorded) == 3


def test_where_there_is_a_kernel():
    matrix = torch.zeros(20, 30, device=DEVICE)
    assert triton_kernel(rule_of(ANDI), matrix, GROUP) == triton_kernel(rule_of(ANDI), matrix[:17], GROUP)
    assert triton_kernel(rule_of(ANDI), matrix, GROUP) != triton_kernel(rule_of(ANDI), matrix[:9], GROUP)
    assert triton_kernel(rule_of(AdamW), matrix, {**GROUP, "batch_dims": 1}) == triton_kernel(
        rule_of(AdamW), matrix, GROUP
    )
    for rule, param in [
        (rule_of(Muon), matrix),
        (Rule(norm=Spectral()), matrix),
        (ROWS, matrix.T),
        (ROWS, matrix.to(torch.complex64)),
        (ROWS, matrix.to("meta")),
    ]:
        assert triton_kernel(rule, param, GROUP) is None


def test_there_is_none_without_triton(monkeypatch):
    matrix = torch.zeros(20, 30, device=DEVICE)
    assert triton_kernel(ROWS, matrix, GROUP) is not None
    monkeypatch.setattr(dispatch, "_installed", lambda: False)
    assert triton_kernel(ROWS, matrix, GROUP) is None


def test_a_machine_that_cannot_build_kernels_is_told_once(monkeypatch):
    """Without a C compiler Triton fails at its first launch; the step must not."""
    device = torch.device("cuda", 7)

    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(dispatch, "_LAUNCHES", {})
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", fail)
    with pytest.warns(RuntimeWarning, match="cannot build kernels for cuda:7 .*Failed to find C compiler"):
        assert not dispatch._launches(device)
    assert not dispatch._launches(device)
    monkeypatch.setattr(dispatch, "_LAUNCHES", {})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not dispatch._launches(device)
    monkeypatch.setattr(dispatch, "_LAUNCHES", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not dispatch._launches(device)
    assert dispatch._LAUNCHES == {}


def test_nothing_imports_triton_before_a_parameter_asks_for_it():
    code = (
        "import sys, torch, steepest\n"
        "p = torch.nn.Parameter(torch.ones(20, 20)); p.grad = torch.ones(20, 20)\n"
        "steepest.NormalizedSGD([p], lr=0.1).step()\n"
        "assert 'steepest.kernels.triton' in sys.modules\n"
        "assert 'steepest.kernels.triton.kernel' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
