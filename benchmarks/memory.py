"""Memory: what selection allocates beyond its inputs, and what the KV cache really holds.

Selection runs in a fresh process per size. Two measures: the most bytes of tensors alive at once, from the allocator's
own record, and the high-water mark of the process (resident set), which also sees what tensors do not. On a GPU the
allocator's record alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare

from vlm_pruner.engine import prune
from vlm_pruner.engine.release import cache_in
from vlm_pruner.methods import create
from vlm_pruner.profiling.run import cache_bytes
from vlm_pruner.profiling.shapes import model_shape
from vlm_pruner.profiling.timing import peak_bytes
from vlm_pruner.types import VisualTokens

WIDTH, KV_HEADS, HEAD_DIM, TEXT = 4096, 32, 128, 60
MIB = 2**20


def tokens(n: int, device: torch.device) -> VisualTokens:
    """n random tokens of a 7B model's width on a raster of 64 columns, their keys, and a question."""
    generator = torch.Generator(device).manual_seed(0)

    def rows(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    return VisualTokens(
        features=rows(n, WIDTH),
        keys=rows(KV_HEADS, n, HEAD_DIM),
        grid=(1, n // 64, 64),
        text=rows(TEXT, WIDTH),
        text_keys=rows(KV_HEADS, TEXT, HEAD_DIM),
        words=rows(TEXT, WIDTH),
        layer=2,
    )


def resident(what: str) -> int:
    """A line of the process's status in bytes: VmRSS or its high-water mark VmHWM; 0 where there is no such file."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(what)), 0)


def child(method_name: str, n: int, keep: int, device: torch.device) -> dict[str, int]:
    """Measure one selection in this process; code and thread pools are warmed up on a small input first."""
    method = create(method_name)
    method.select(tokens(128, device), 16)
    given = tokens(n, device)
    before = resident("VmRSS")
    if before:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the mark starts again from here
    selection = method.select(given, keep)
    high = resident("VmHWM") - before
    allocated = peak_bytes(lambda: method.select(given, keep), device)
    return {"kept": len(selection), "allocated": allocated, "resident": high if before and device.type == "cpu" else -1}


def selection_rows(report: Report, methods: list[str], sizes: list[tuple[int, int]]) -> None:
    """One fresh process per method and size."""
    for name in methods:
        for n, keep in sizes:
            command = [sys.executable, "-m", "benchmarks.memory", "--child", name, str(n), str(keep)]
            command += ["--device", report.options.device, "--threads", str(report.options.threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            report.check(done.returncode == 0, f"{name} at n={n}: {done.stderr.strip()[-300:]}")
            if done.returncode:
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            report.check(found["kept"] == keep, f"{name} kept {found['kept']} of {n} tokens, not {keep}")
            extra = {"allocated_MiB": found["allocated"] / MIB}
            if found["resident"] >= 0:
                extra["resident_MiB"] = found["resident"] / MIB
            report.row(f"{name}, n {n}, keep {keep}", inputs_MiB=8 * n * WIDTH / MIB, **extra)


def cache_rows(report: Report, device: torch.device) -> None:
    """The cache's own tensors against what the session reports."""
    spec = model_shape("tiny" if report.options.quick else "wide-8")
    model, inputs = spec.build(device, torch.float32), spec.inputs(device, torch.float32)
    full = cache_bytes(cache_in(model(**inputs, use_cache=True, logits_to_keep=1)))
    report.row("KV cache, unpruned", held_MiB=full / MIB)
    for layer in (0, 2):
        with prune(model, "random", keep=64, layer=layer) as session:
            held = cache_bytes(cache_in(model(**inputs, use_cache=True, logits_to_keep=1)))
        said: Any = session.report
        report.check(
            held == said.kv_bytes_pruned, f"the cache holds {held} bytes, the report says {said.kv_bytes_pruned}"
        )
        report.check(full == said.kv_bytes_full, f"unpruned: {full} bytes, the report says {said.kv_bytes_full}")
        report.row(f"KV cache, keep 64, layer {layer}", held_MiB=held / MIB, reported_MiB=said.kv_bytes_pruned / MIB)


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    if options.child:
        name, n, keep = options.child
        print(json.dumps(child(name, int(n), int(keep), device)))
        return
    report = Report("memory", options, device)
    sizes = [(576, 64)] if options.quick else [(576, 64), (2880, 320), (8192, 64), (8192, 910)]
    selection_rows(report, options.methods.split(","), sizes)
    cache_rows(report, device)
    for row in report.rows:
        if row["name"].startswith("vlm-pruner, n 8192"):
            worst = max(row["allocated_MiB"], row.get("resident_MiB", 0.0))
            report.aim(f"extra memory of {row['name']}, MiB (no copy of features or keys)", worst, 32.0)
    report.finish()


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--methods", default="vlm-pruner,divprune,dart,cdpruner")
    parser.add_argument("--child", nargs=3, metavar=("METHOD", "N", "KEEP"), help=argparse.SUPPRESS)
    main(parser.parse_args())
