"""Error and time of every way to a polar factor, side by side.

    python benchmarks/polar_table.py                 # print the table
    python benchmarks/polar_table.py --write         # and put it into docs/polar.md
    python benchmarks/polar_table.py --crossover     # where the Gram form becomes the cheaper
    python benchmarks/polar_table.py --products      # what halves of symmetric products save, by block size

Ways are interleaved in one process, in an order that rotates; figures are medians. On a machine that is busy
with other work, ``--clock cpu --threads 1`` counts the processor's time instead of the wall's.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from steepest.linalg import polar, products
from steepest.linalg.newton_schulz import iterate, iterate_gram
from steepest.linalg.quintics import newton_schulz_schedule
from steepest.linalg.scaling import unit_frobenius

PAGE = Path(__file__).resolve().parent.parent / "docs" / "polar.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"

SHAPES: dict[str, tuple[int, ...]] = {
    "512 x 512": (512, 512),
    "1536 x 512": (1536, 512),
    "512 x 2048": (512, 2048),
    "2048 x 512": (2048, 512),
    "8192 x 512": (8192, 512),
    "64 of 128 x 128": (64, 128, 128),
    "conv 512 x 4608": (512, 4608),
}
REFERENCE = "newton_schulz"
WAYS: dict[str, dict[str, Any]] = {
    REFERENCE: {"method": "newton_schulz"},
    "auto": {},
    "auto, error 0.33": {"error": 0.33},
    "polar_express": {"method": "polar_express"},
    "gram_polar_express": {"method": "gram_polar_express"},
    "minimax, 5 steps": {"method": "minimax"},
    "minimax, 6 steps": {"method": "minimax", "steps": 6},
    "svd": {"method": "svd"},
}


Clock = Callable[[], float]
Ways = dict[str, Callable[[], object]]


def interleaved(ways: Ways, rounds: int, clock: Clock) -> dict[str, float]:
    """Return the median time of each way in ms."""
    names = list(ways)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = clock()
            ways[name]()
            if i:  # the first round warms up
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def errors(x: Tensor, u: Tensor) -> tuple[float, float, float]:
    """Return |U U^T - I|, in the spectral norm and root mean square, and the mean distance to msign(X)."""
    x, u = (t.double().reshape(-1, *t.shape[-2:]) for t in (x, u))
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    side = min(u.shape[-2:])
    gram = u @ u.mT if u.shape[-2] <= u.shape[-1] else u.mT @ u
    off = gram - torch.eye(side, dtype=torch.float64)
    distance = torch.linalg.matrix_norm(u - left @ right) / side**0.5
    return (
        torch.linalg.matrix_norm(off, 2).max().item(),
        (torch.linalg.matrix_norm(off) / side**0.5).max().item(),
        distance.max().item(),
    )


def table(rounds: int, clock: Clock) -> str:
    """Return the table as Markdown."""
    lines = [
        "| shape | method | \\|O O^T - I\\| largest | root mean square | distance to msign | ms | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, shape in SHAPES.items():
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        ways: Ways = {name: partial(polar, x, **way) for name, way in WAYS.items()}
        times = interleaved(ways, rounds, clock)
        for name, way in WAYS.items():
            largest, mean, distance = errors(x, polar(x, **way))
            ratio = times[name] / times[REFERENCE]
            lines.append(
                f"| {label} | {name} | {largest:.2g} | {mean:.2g} | {distance:.2g} "
                f"| {times[name]:.1f} | {ratio:.2f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def crossover(rounds: int, clock: Clock) -> None:
    """Print the time of the Gram form over that of the direct one, by ratio of the sides."""
    schedule = newton_schulz_schedule(5)
    for short in (64, 128, 256, 512):
        for ratio in (1.0, 1.25, 1.375, 1.5, 1.75, 2.0, 3.0):
            count = max(1, 2**18 // short**2)
            x = unit_frobenius(torch.randn(count, short, int(short * ratio)))
            found = interleaved(
                {
                    "direct": lambda x=x: iterate(x.clone(), schedule),
                    "gram": lambda x=x: iterate_gram(x, schedule),
                },
                rounds,
                clock,
            )
            print(
                f"short side {short:4}, ratio {ratio:5.3f}: {found['gram'] / found['direct']:.2f}", flush=True
            )


def halves(rounds: int, clock: Clock) -> None:
    """Print the time of a symmetric product in halves over the whole product, by side and block size."""
    for side in (256, 384, 512, 768, 1024, 1536, 2048):
        a = torch.randn(side, side)
        a = a @ a.mT / side
        out = torch.empty_like(a)

        def in_blocks(rows: int, a: Tensor = a, out: Tensor = out) -> None:
            with mock.patch.object(products, "block_rows", return_value=rows):
                products.symmetric_multiply(a, a, out)

        ways: Ways = {"whole": partial(torch.mm, a, a, out=out)}
        ways.update(
            {f"{rows} rows": partial(in_blocks, rows) for rows in (128, 256, 512) if 2 * rows <= side}
        )
        with mock.patch.object(products, "LEAST_SIDE", 0):
            found = interleaved(ways, rounds, clock)
        whole = found.pop("whole")
        shares = ", ".join(f"{name} {ms / whole:.2f}" for name, ms in found.items())
        print(f"side {side:4}: {shares}", flush=True)


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


def main() -> None:
    """Measure and print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="replace the table of docs/polar.md")
    what.add_argument("--crossover", action="store_true")
    what.add_argument("--products", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    machine = (
        f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}, torch {torch.__version__}, "
        f"float32, Gaussian matrices, median of {options.rounds} rounds, {options.clock} time"
    )
    print(machine)
    if options.crossover:
        crossover(options.rounds, clock)
    elif options.products:
        halves(options.rounds, clock)
    else:
        found = table(options.rounds, clock)
        if options.write:
            text = PAGE.read_text(encoding="utf-8")
            before, after = text.partition(BEGIN)[0], text.partition(END)[2]
            PAGE.write_text(f"{before}{BEGIN}\n{machine}:\n\n{found}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
