"""Time optimizer steps side by side: interleaved in one process, medians and ratios to torch's fused AdamW.

    python benchmarks/step_time.py --sets gpt small --out step_time.json

Every optimizer has its own copy of the parameters and fixed random gradients. One round steps each of them
once, in an order that rotates from round to round, so that a busy moment of the machine hits all alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from parameter_sets import SETS, Shapes
from torch import Tensor

import steepest

REFERENCE = "torch AdamW fused"
Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class PlainANDI(torch.optim.Optimizer):
    """ANDI's formula as one writes it down first: one tensor at a time, whole-tensor operations."""

    def __init__(self, params: Any, lr: float = 0.02, momentum: float = 0.9, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad.reshape(p.shape[0], -1) if p.ndim > 1 else p.grad
                h = g
                if p.ndim > 1 and min(g.shape) > 16:
                    h = g / (g.norm(dim=1, keepdim=True) + g.norm(dim=0, keepdim=True) + group["eps"])
                h = h * ((g.norm() ** 2 + 1).sqrt() / (h.norm() + group["eps"]))
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(g))
                buffer.mul_(group["momentum"]).add_(h)
                p.add_((h + group["momentum"] * buffer).reshape(p.shape), alpha=-group["lr"])


def matrices_and_rest(params: list[torch.nn.Parameter]) -> list[Any]:
    """Return groups for torch.optim.Muon beside AdamW."""
    return [[p for p in params if p.ndim == 2], [p for p in params if p.ndim != 2]]


def contenders(shapes: Shapes) -> dict[str, Make]:
    """Return how to build every optimizer that takes these shapes."""
    found: dict[str, Make] = {
        REFERENCE: lambda p: torch.optim.AdamW(p, fused=True),
        "torch AdamW foreach": lambda p: torch.optim.AdamW(p, foreach=True),
        "torch SGD Nesterov fused": lambda p: torch.optim.SGD(
            p, 1e-3, momentum=0.9, nesterov=True, fused=True
        ),
        "steepest AdamW": lambda p: steepest.AdamW(p),
        "steepest SignSGD": lambda p: steepest.SignSGD(p),
        "steepest ANDI": lambda p: steepest.ANDI(p),
        "plain ANDI": lambda p: PlainANDI(p),
        "steepest Muon": lambda p: steepest.Muon(p),
        "steepest MuAdam": lambda p: steepest.MuAdam(p),
        "steepest SOAP": lambda p: steepest.SOAP(p),
    }
    if all(len(shape) <= 2 for shape in shapes):
        found["torch Muon (matrices)"] = lambda p: torch.optim.Muon(matrices_and_rest(p)[0])
    try:
        import pytorch_optimizer

        found["pytorch-optimizer SOAP"] = lambda p: pytorch_optimizer.SOAP(p)
    except ImportError:
        print("pytorch-optimizer is not installed: its SOAP is left out")
    return found


def parameters(shapes: Shapes, device: str) -> list[torch.nn.Parameter]:
    """Return parameters with gradients, the same for every optimizer."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    params = [torch.nn.Parameter(0.02 * normal(shape)) for shape in shapes]
    for param in params:
        param.grad = 1e-3 * normal(tuple(param.shape))
    return params


def measure(shapes: Shapes, rounds: int, device: str, only: list[str]) -> dict[str, dict[str, float]]:
    """Return median and quartiles of the step time in ms, and state bytes per parameter."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    chosen = {n: m for n, m in contenders(shapes).items() if not only or n == REFERENCE or n in only}
    optimizers = {name: make(parameters(shapes, device)) for name, make in chosen.items()}
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    names = list(optimizers)
    for i in range(rounds + 2):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            wait()
            start = time.perf_counter()
            optimizers[name].step()
            wait()
            if i >= 2:  # the first two create state and warm up
                times[name].append(1e3 * (time.perf_counter() - start))
    entries = sum(torch.Size(shape).numel() for shape in shapes)
    result = {}
    for name, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        state = [v for s in optimizers[name].state.values() for v in s.values() if isinstance(v, Tensor)]
        held = sum(v.numel() * v.element_size() for v in state)
        result[name] = {"ms": middle, "low": low, "high": high, "state_bytes": held / entries}
    return result


def machine(device: str) -> dict[str, Any]:
    """Return what the figures depend on."""
    versions = {}
    for name in ("torch", "steepest", "pytorch-optimizer"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    chip = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {"device": device, "chip": chip, "threads": torch.get_num_threads(), "versions": versions}


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", default=[], help="names as printed; the reference always runs")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(options.device), "rounds": options.rounds, "sets": {}}
    print(json.dumps(results["machine"]))
    for name in options.sets:
        found = measure(SETS[name](), options.rounds, options.device, options.only)
        results["sets"][name] = found
        base = found[REFERENCE]["ms"]
        print(f"\n{name}\n{'':28}{'ms':>9}  {'quartiles':>17}  {'ratio':>6}  {'state B/param':>13}")
        for label, row in sorted(found.items(), key=lambda item: item[1]["ms"]):
            spread = f"{row['low']:.2f}-{row['high']:.2f}"
            ratio = row["ms"] / base
            print(f"{label:28}{row['ms']:9.2f}  {spread:>17}  {ratio:6.2f}  {row['state_bytes']:13.2f}")
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
