from __future__ import annotations

import torch

from steepest.bench.memory import peak_bytes, state_bytes

CPU = torch.device("cpu")


def test_peak_counts_what_is_held_at_once() -> None:
    def work() -> None:
        for _ in range(3):
            a = torch.empty(1000)
            b = torch.empty(500)
            del a, b
        c = torch.empty(1200)
        del c

    assert peak_bytes(work, CPU) == 4 * 1500


def test_peak_sees_inside_operations_and_nothing_in_place() -> None:
    a, b = torch.zeros(64, 64), torch.zeros(64, 64)
    assert peak_bytes(lambda: a.add_(b), CPU) == 0
    assert peak_bytes(lambda: (a + b) + a, CPU) == 2 * 4 * 64 * 64


def test_state_counts_nested_tensors_once() -> None:
    whole = torch.zeros(10)
    state = {
        "a": whole,
        "b": whole[:5],
        "list": [torch.zeros(3), {"deep": torch.zeros(2, dtype=torch.float64)}],
    }
    assert state_bytes([{0: state}, 7, "text"]) == 40 + 12 + 16
