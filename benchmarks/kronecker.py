"""Whole refresh cycles of the Kronecker family, side by side with packages that implement the same rules.

    python benchmarks/kronecker.py --sets block small --methods SOAP --out kronecker.json

A cycle is as many steps as lie between two refreshes: its mean is what training pays, its largest step what
a cluster waits for. Every optimizer has its own parameters; all see the same gradients, which change from
step to step (a fixed one would leave the statistics singular). One round steps each once, in an order that
rotates.

Like with like: matrices only, convolutions as (out, rest), no embedding, one refresh frequency for all,
SOAP's limit on sides at 10000, Shampoo without blocks. heavyball runs uncompiled
(``heavyball.utils.compile_mode = None``): compiling takes minutes on a CPU and the time goes into products
and QR, which it leaves alone. Differences that remain: pytorch-optimizer's Shampoo has no momentum to correct
and roots by SVD, heavyball's SOAP clamps where others add eps, its KL methods use the eigenvalues of the
statistics.
"""

from __future__ import annotations

import argparse
import json
import math
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
from steepest.linalg.products import symmetric_multiply_add

Make = Callable[[list[torch.nn.Parameter], int], torch.optim.Optimizer]
POOL = 4
"""How many different gradients a parameter sees."""


class ProductsAlone(torch.optim.Optimizer):
    """The products that no step of SOAP can do without: project, restore, half of two outer products."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Multiply."""
        for p in self.param_groups[0]["params"]:
            own = self.state[p]
            if not own:
                for side, size in zip(("left", "right"), p.shape, strict=True):
                    own[side], own[f"{side}_basis"] = torch.eye(size), torch.eye(size)
            projected = own["left_basis"].mT @ p.grad @ own["right_basis"]
            _ = own["left_basis"] @ projected @ own["right_basis"].mT
            for side, x in (("left", p.grad), ("right", p.grad.mT)):
                symmetric_multiply_add(own[side], x, x.mT, own[side], beta=0.9, alpha=0.1)


def ours(name: str, **options: Any) -> Make:
    """Return how to build one of this library's methods."""
    return lambda p, f: getattr(steepest, name)(p, precondition_frequency=f, **options)


def contenders() -> dict[str, dict[str, Make]]:
    """Return how to build every optimizer, by method; the first is ours."""
    found: dict[str, dict[str, Make]] = {
        "SOAP": {"steepest": ours("SOAP"), "products alone": lambda p, f: ProductsAlone(p)},
        "KLShampoo": {"steepest": ours("KLShampoo")},
        "KLSOAP": {"steepest": ours("KLSOAP")},
        "SPlus": {"steepest": ours("SPlus")},
        "Shampoo": {"steepest": ours("Shampoo", max_precondition_dim=100_000)},
    }
    try:
        import pytorch_optimizer as peers

        found["SOAP"]["pytorch-optimizer"] = lambda p, f: peers.SOAP(p, precondition_frequency=f)
        found["SPlus"]["pytorch-optimizer"] = lambda p, f: peers.SPlus(p, inverse_steps=f)
        found["Shampoo"]["pytorch-optimizer"] = lambda p, f: peers.Shampoo(p, preconditioning_compute_steps=f)
    except ImportError:
        print("pytorch-optimizer is not installed and left out")
    try:
        import heavyball

        heavyball.utils.compile_mode = None
        options: dict[str, Any] = {"merge_dims": False, "max_precond_dim": 10_000}
        for name in ("SOAP", "KLShampoo", "KLSOAP"):
            make = getattr(heavyball, name)
            found[name]["heavyball"] = lambda p, f, make=make: make(p, precondition_frequency=f, **options)
    except ImportError:
        print("heavyball is not installed and left out")
    return found


def matrices(shapes: Shapes) -> Shapes:
    """Return what all of them read alike: matrices, convolutions flattened, embeddings left out."""
    flat = [(s[0], math.prod(s[1:])) for s in shapes if len(s) > 1]
    return [shape for shape in flat if max(shape) < 8192]


def block() -> Shapes:
    """Return the matrices of one block of the GPT set, for peers that need seconds for each."""
    return matrices(SETS["gpt"]())[:4]


def measure(
    makes: dict[str, Make], shapes: Shapes, frequency: int, cycles: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the milliseconds of every step after the first, for whole cycles."""
    generator = torch.Generator().manual_seed(0)

    def normal(shape: tuple[int, ...], size: float) -> Tensor:
        return torch.randn(shape, generator=generator).mul_(size)

    starts = [normal(shape, 0.02) for shape in shapes]
    pool = [[normal(shape, 1e-3) for shape in shapes] for _ in range(POOL)]
    params = {name: [torch.nn.Parameter(w.clone()) for w in starts] for name in makes}
    optimizers = {name: make(params[name], frequency) for name, make in makes.items()}
    times: dict[str, list[float]] = {name: [] for name in makes}
    names = list(makes)
    for i in range(1 + cycles * frequency):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            for param, gradient in zip(params[name], pool[i % POOL], strict=True):
                param.grad = gradient.clone()
            start = clock()
            optimizers[name].step()
            times[name].append(1e3 * (clock() - start))
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Return the mean, median and largest step after the first, and the first."""
    rest = times[1:]
    middle = statistics.median(rest)
    return {
        "mean": statistics.fmean(rest),
        "median": middle,
        "largest": max(rest),
        "jump": max(rest) / middle,
        "first": times[0],
    }


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    versions = {}
    for name in ("torch", "steepest", "pytorch-optimizer", "heavyball"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    chip = platform.processor() or platform.machine()
    return {"chip": chip, "threads": torch.get_num_threads(), "versions": versions}


def main() -> None:
    """Measure, print tables, write JSON."""
    sets = {**{name: lambda make=make: matrices(make()) for name, make in SETS.items()}, "block": block}
    known = contenders()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(sets), default=["block", "small"])
    parser.add_argument("--methods", nargs="+", choices=list(known), default=list(known))
    parser.add_argument("--frequency", type=int, default=10)
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--processor-time", action="store_true", help="for busy machines, with --threads 1")
    parser.add_argument("--only", nargs="+", default=[], help="packages; steepest always runs")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    results: dict[str, Any] = {"machine": machine(), "frequency": options.frequency, "sets": {}}
    print(json.dumps(results["machine"]))
    for name in options.sets:
        results["sets"][name] = {}
        print(f"\n{name}, refresh every {options.frequency}, ms")
        print(f"{'':30}{'mean':>9}{'median':>9}{'largest':>9}{'jump':>6}{'first':>9}{'ratio':>7}")
        for method in options.methods:
            makes = {
                k: v for k, v in known[method].items() if not options.only or k in ("steepest", *options.only)
            }
            times = measure(makes, sets[name](), options.frequency, options.cycles, clock)
            rows = {label: summary(found) for label, found in times.items()}
            results["sets"][name][method] = rows
            for label, row in rows.items():
                figures = "".join(f"{row[k]:9.1f}" for k in ("mean", "median", "largest"))
                ratio = rows["steepest"]["mean"] / row["mean"]
                print(
                    f"{method + ', ' + label:30}{figures}{row['jump']:6.1f}{row['first']:9.1f}{ratio:7.2f}",
                    flush=True,
                )
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
