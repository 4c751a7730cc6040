"""Compiles the launches of a step for a GPU that need not be there, and prints what came out as JSON.

Run by its test in a process of its own: Triton decides once, when it is imported, whether it interprets.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from steepest.kernels import plans
from steepest.kernels.plans import Averaging, Elementwise, Equilibrated, Normalized, Plan, SquareStatistic
from steepest.kernels.triton import kernel as kernels

TYPES = {torch.float64: "*fp64", torch.int64: "*i64"}
NESTEROV = Averaging("heavy_ball", "momentum_buffer", nesterov=True)
FIRST = Averaging("heavy_ball", "momentum_buffer", from_first=True)
MEAN = Averaging("ema", "exp_avg", corrected=True)
SQUARE = SquareStatistic("exp_avg_sq", 1 / 3, "inside", True)
STEPS: dict[str, tuple[Plan, torch.dtype, tuple[int, int], bool]] = {
    "andi": (Equilibrated(NESTEROV, "both", 0, "decoupled"), torch.float32, (256, 512), False),
    "odd": (Equilibrated(FIRST, "rows", 3, "l2"), torch.bfloat16, (255, 511), True),
    "normalized": (Normalized(NESTEROV, 1.0, "after"), torch.float64, (64, 64), False),
    "sign": (Elementwise(MEAN, SQUARE, True, 1.0, "cautious"), torch.bfloat16, (64, 64), True),
}
"""Plan, dtype, shape, and whether a number of the step is a tensor."""


def launches(
    plan: Plan, dtype: torch.dtype, shape: tuple[int, int], on_device: bool
) -> list[tuple[Any, Any]]:
    """Return the kernels of a step with their arguments."""
    made: list[tuple[Any, Any]] = []
    kernels.launch = lambda kernel, programs, **arguments: made.append((kernel, arguments))
    param = torch.zeros(shape, dtype=dtype)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    state = {name: torch.zeros(shape, dtype=work) for name in plans.buffers(plan)}
    hypers = {"lr": torch.tensor(0.1) if on_device else 0.1}
    kernels.TritonKernel(plan, 0, True)([param], [param.clone()], [{**state, "step": torch.ones(())}], hypers)
    return made


def compiled(kernel: Any, arguments: dict[str, Any], capability: int) -> Any:
    """Compile a launch as the launcher would specialize it."""
    signature, constants, attributes = {}, {}, {}
    for parameter in kernel.params:
        value = arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[(parameter.num,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            attributes[(parameter.num,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):  # a plain float argument would be float32
            assert parameter.annotation_type == "fp64", parameter.name
            signature[parameter.name] = "fp64"
        else:  # else every length of a list would be a kernel of its own
            assert parameter.do_not_specialize, parameter.name
            signature[parameter.name] = "i32"
    source = ASTSource(kernel, signature, constants, attributes)
    options = {"num_warps": kernels.WARPS, "enable_fp_fusion": True}
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def main(capability: int) -> None:
    """Print the bytes of the widest access of each kernel of each step."""
    report: dict[str, dict[str, int]] = {}
    for name, step in STEPS.items():
        for kernel, arguments in launches(*step):
            assembly = compiled(kernel, arguments, capability).asm
            assert assembly["cubin"]
            accesses = re.findall(r"(?:ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)", assembly["ptx"])
            widest = max(int(count or 1) * int(bits) // 8 for count, bits in accesses)
            report.setdefault(name, {})[kernel.__name__] = widest
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]))
