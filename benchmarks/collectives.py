"""Bytes that a sharded optimizer step sends, counted, beside the formulas that predict them.

    python benchmarks/collectives.py --ranks 2 4 --write docs/sharding.md

The parameters are the matrices of the set gpt (29.4M), in shards of rows as ``fully_shard`` makes them. For
rank counts that were not run the formulas are given as a model. Besides: how evenly the work of matrix rules
is divided, computed from their costs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from parameter_sets import SETS
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import steepest
from steepest.distributed import configure, counting
from steepest.distributed.balance import cost, divide_evenly, imbalance

MODEL = (8, 32, 128, 1024)
BEGIN, END = "<!-- measured: collectives -->", "<!-- end: collectives -->"
SHAPES = [shape for shape in SETS["gpt"]() if len(shape) == 2]
COLUMNS = sum(n for _, n in SHAPES)
ENTRIES = sum(m * n for m, n in SHAPES)
METHODS: dict[str, tuple[Callable[[Any], Any], torch.dtype | None]] = {
    "AdamW": (lambda p: steepest.AdamW(p), None),
    "ANDI": (lambda p: steepest.ANDI(p), None),
    "Muon": (lambda p: steepest.Muon(p), None),
    "Muon, bf16 traffic": (lambda p: steepest.Muon(p), torch.bfloat16),
}


def predicted(method: str, ranks: int) -> float:
    """Return the bytes that all ranks together send in one step for directions, by the stated formulas."""
    if method == "AdamW":
        return 0.0
    if method == "ANDI":  # all-reduce of float64 column sums and two sums per matrix
        return ranks * 2 * (ranks - 1) / ranks * 8 * (COLUMNS + 2 * len(SHAPES))
    width = 2 if "bf16" in method else 4
    return 2 * width * ENTRIES * (ranks - 1) / ranks  # to the owners and back


def largest(method: str, ranks: int) -> float:
    """Return the bytes that the busiest rank sends: its shards to all owners, and what it owns to all."""
    if not method.startswith("Muon"):
        return predicted(method, ranks) / ranks
    muon = steepest.Muon([torch.nn.Parameter(torch.empty(2, 2))])
    rule = muon.recipe(muon.param_groups[0])
    owners, _ = divide_evenly([cost(rule, (1, m, n)) for m, n in SHAPES], ranks)
    owned = [0] * ranks
    for (m, n), owner in zip(SHAPES, owners, strict=True):
        owned[owner] += m * n
    width = 2 if "bf16" in method else 4
    return width * max((ENTRIES - mine) / ranks + mine * (ranks - 1) / ranks for mine in owned)


def worker() -> None:
    """Take a step of every method and print what it sent; run by torchrun."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found: dict[str, dict[str, float]] = {}
    for name, (make, traffic) in METHODS.items():
        generator = torch.Generator().manual_seed(0)
        params = []
        for shape in SHAPES:
            whole = 0.02 * torch.randn(shape, generator=generator)
            param = torch.nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]))
            param.grad = distribute_tensor(torch.randn(shape, generator=generator), mesh, [Shard(0)])
            params.append(param)
        optimizer = make(params)
        configure(optimizer, traffic=traffic)
        optimizer.step()
        with counting() as counted:
            optimizer.step()
        labels = counted.by_label()
        every: list[dict[str, float]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(every, labels)
        sums = {label: sum(one.get(label, 0.0) for one in every) for one in every for label in one}
        found[name] = {**sums, "largest": max(sum(one.values()) for one in every)}
    if dist.get_rank() == 0:
        print("RESULT" + json.dumps(found))
    dist.destroy_process_group()


def measure(ranks: int) -> dict[str, dict[str, float]]:
    """Return bytes by purpose for every method, on so many processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run([*command, __file__, "--worker"], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if done.returncode or not lines:
        sys.exit(done.stdout + done.stderr)
    return json.loads(lines[0].removeprefix("RESULT"))


def table(results: dict[int, dict[str, dict[str, float]]]) -> str:
    """Return measured and modelled traffic as Markdown."""
    lines = [
        f"Parameters: the {len(SHAPES)} matrices of a GPT shape, {ENTRIES / 1e6:.1f}M entries, float32, rows "
        f"sharded; torch {torch.__version__}, gloo. MB sent in one step by all ranks together.",
        "",
        "| method | ranks | for directions | by the formula | to agree on the step | largest rank |",
        "|---|---|---|---|---|---|",
    ]
    for ranks, found in results.items():
        for name, sent in found.items():
            agreement = sent.get("agreement", 0.0)
            directions = sum(v for k, v in sent.items() if k not in ("largest", "agreement"))
            cells = [directions, predicted(name, ranks), agreement, sent["largest"]]
            lines.append(f"| {name} | {ranks} | " + " | ".join(f"{v / 1e6:.3f}" for v in cells) + " |")
    lines += [
        "",
        "The same formulas for more ranks. **This is a model, not a measurement**: MB sent per rank and "
        "step, mean over ranks / largest rank.",
        "",
        "| method | " + " | ".join(f"{ranks} ranks" for ranks in MODEL) + " |",
        "|---|" + "---|" * len(MODEL),
    ]
    for name in METHODS:
        cells = [f"{predicted(name, r) / r / 1e6:.3f} / {largest(name, r) / 1e6:.3f}" for r in MODEL]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def balance() -> str:
    """Return as Markdown the largest owner's cost over the mean, and what no division can be below."""
    hidden = [shape for shape in SHAPES if max(shape) < 8192]
    head = f"all {len(SHAPES)}, with {'x'.join(map(str, max(SHAPES)))}"
    lines = [
        "Cost of the largest owner over the mean, on 4 ranks; in brackets what no division can be below, "
        "since one matrix has one owner: the most expensive matrix over the mean.",
        "",
        f"| method | the {len(hidden)} hidden matrices | {head} |",
        "|---|---|---|",
    ]
    methods: dict[str, Callable[[Any], Any]] = {
        "Muon, MuAdam": lambda p: steepest.Muon(p),
        "Shampoo": lambda p: steepest.Shampoo(p, lr=1e-3),
        "SOAP": lambda p: steepest.SOAP(p, lr=1e-3),
        "SOAP, max_precondition_dim=4096": lambda p: steepest.SOAP(p, lr=1e-3, max_precondition_dim=4096),
        "KL-Shampoo, KL-SOAP, SPlus": lambda p: steepest.KLShampoo(p, lr=1e-3),
    }
    for name, make in methods.items():
        cells: list[str] = []
        for shapes in (hidden, SHAPES):
            optimizer = make([torch.nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes])
            rule = optimizer.recipe(optimizer.param_groups[0])
            costs = [cost(rule.for_shape(torch.Size(shape)), (1, *shape)) for shape in shapes]
            bound = max(1.0, 4 * max(costs) / sum(costs))
            cells.append(f"{imbalance(divide_evenly(costs, 4)[1]):.2f} ({bound:.2f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the page on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--write", type=Path, default=None, help="page whose marked part is replaced")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker()
        return
    text = table({ranks: measure(ranks) for ranks in options.ranks}) + "\n\n" + balance()
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        options.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
