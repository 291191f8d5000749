"""Compile every kernel for a GPU that is not here: a program of its own, since Triton interprets or compiles, not both.

`python -m tests.support.compiled 90` runs each op as on a device of that compute capability, except that a launch only
compiles. It prints one JSON object a kernel: what was launched, and the registers and the stack that it takes.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

from vlm_pruner.ops import launch
from vlm_pruner.ops.growth.rule import GrowthRule

PROCESSORS = 132
SIZES = (
    (576, 64),
    (577, 65),
    (600, 1),
    (1196, 132),
    (2880, 320),
)  # tokens, budget; none of them may need a kernel of its own
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Device:
    """What Triton asks of its driver before a launch."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and the bytes of its stack, which is where registers are spilled to."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", said))
    return {"registers": int(usage["REG"]), "stack": int(usage["STACK"]) + int(usage["LOCAL"])}


def ops(dtype: torch.dtype, n: int, d: int, keep: int) -> None:
    """Launch every kernel once, on two images of n tokens of width d."""
    features, keys = torch.zeros(2, n, d, dtype=dtype).unbind(), torch.zeros(2, 4, n, 128, dtype=dtype).unbind()
    index = torch.arange(keep).expand(2, -1)
    source, weight = torch.zeros(2, n, dtype=torch.int64), torch.zeros(2, n)
    triton_of("pivots").farthest_points(keys, 4)
    triton_of("screen").screen(features, 256)
    triton_of("merge").merge(features, index, source, weight, 0.3)
    triton_of("maxmin").spread(features, keep, None, None)
    triton_of("dpp").dpp(features, weight.unbind(), keep)
    if dtype == torch.float32:
        triton_of("facility").facility(torch.zeros(2, n, 4096), keep, torch.ones(2, 4096), torch.ones(2, n))
        images = torch.zeros(2, n, 256), torch.zeros(2, n, 2), torch.ones(2), index[:, :4]
        triton_of("growth").grow(*images, keep, GrowthRule())


def triton_of(op: str) -> Any:
    """The module of an op's kernels."""
    return importlib.import_module(f"vlm_pruner.ops.{op}.triton")


def main(capability: int) -> None:
    """Compile for `capability`, print one line a kernel and dtype."""
    triton.runtime.driver.set_active(Device(capability))
    launch.residents = lambda device: PROCESSORS  # type: ignore[assignment]
    compiled: dict[str, dict[str, CompiledKernel]] = {}
    launched = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = launched(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.setdefault(f"{self.module}.{self.__name__}", {})[kernel.hash] = kernel
        return kernel

    JITFunction.run = run
    for dtype in DTYPES:
        compiled.clear()
        for n, keep in SIZES:
            ops(dtype, n, 4096, keep)
        for name, variants in compiled.items():
            for kernel in variants.values():
                found = {"kernel": name, "dtype": str(dtype), "variants": len(variants)}
                found |= {"threads": 32 * kernel.metadata.num_warps}
                found |= {"cooperative": kernel.metadata.launch_cooperative_grid, "shared": kernel.metadata.shared}
                print(json.dumps(found | resources(kernel.asm["cubin"])), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
