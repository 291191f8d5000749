"""Every kernel compiles for GPUs that are not here, without spilling; what it would do there, the interpreter shows."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.slowly import the_rest_slowly

KERNELS = {
    "dpp.triton._whole",
    "facility.triton._choose",
    "growth.triton._whole",
    "maxmin.triton._choose",
    "maxmin.triton._lengths",
    "maxmin.triton._neighbours",
    "merge.triton._fold",
    "pivots.triton._whole",
    "screen.triton._unit_rows",
    "screen.triton._variances",
}
CREWS = {
    "dpp.triton._whole",
    "facility.triton._choose",
    "growth.triton._whole",
    "maxmin.triton._choose",
    "pivots.triton._whole",
}
SPILL = 32  # bytes of a thread that do not matter
REGISTERS = 1 << 16  # of a multiprocessor, on each of which one program of a crew must find room
SHARED = 99 * 1024  # bytes that a program may have on every device since 2020


def tools_missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    import triton

    knobs = getattr(getattr(triton, "knobs", None), "nvidia", None)
    for tool in ("ptxas", "cuobjdump"):
        path = getattr(getattr(knobs, tool, None), "path", None)
        if path is None or shutil.which(path) is None:
            return f"triton came without {tool}"
    return None


@pytest.mark.parametrize("capability", the_rest_slowly([80, 90], [90]))
def test_every_kernel_compiles(capability, tmp_path):
    if (reason := tools_missing()) is not None:
        pytest.skip(reason)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    command = [sys.executable, "-m", "tests.support.compiled", str(capability)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert {kernel["kernel"].removeprefix("vlm_pruner.ops.") for kernel in kernels} == KERNELS
    for kernel in kernels:
        assert kernel["stack"] <= SPILL, kernel
        assert kernel["shared"] <= SHARED, kernel
        assert kernel["cooperative"] == (kernel["kernel"].removeprefix("vlm_pruner.ops.") in CREWS), kernel
        assert kernel["variants"] == 1, kernel
        assert kernel["registers"] * kernel["threads"] <= REGISTERS, kernel
