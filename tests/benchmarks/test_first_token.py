"""The benchmark of the first token: what its rows say, and that all benchmarks of a GPU can be started at once."""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.common import Report, arguments
from benchmarks.gpu import all as everything
from benchmarks.gpu.first_token import BUDGETS, rows

from vlm_pruner.flops import DecoderShape
from vlm_pruner.profiling import SHAPES, ProfileResult, Variant

SHAPE = DecoderShape(4, 64, 128, 4, 4, 16, 256)


def profile(pruned: float) -> ProfileResult:
    """Of 500 image and 50 text tokens: 150 ms, 100 of them prefill, become 50 + `pruned` ms."""
    full = Variant("unpruned", (), {"prefill": [100.0], "first_token": [150.0], "encoder": [40.0]}, 0, 20)
    spans = {"prefill": [pruned], "first_token": [50 + pruned], "encoder": [40.0], "selection": [2.0]}
    kept = Variant("keep 64", ((2, 64),), spans, 0, 10)
    found = ProfileResult("M", "m", {}, SHAPE, 50, (500,), 2, 4, None, (full, kept))
    return replace(found, variants=tuple(replace(v, kv_bytes=found.kv_predicted(v)) for v in (full, kept)))


def report(**options: Any) -> Report:
    return Report("gpu/first_token", argparse.Namespace(quick=True, out=None, **options), torch.device("cpu"))


def test_rows_split_the_first_token_and_the_7b_shape_has_aims() -> None:
    made = report()
    rows(made, "llava-1.5-7b", "vlm-pruner", profile(pruned=20.0))
    base, pruned = made.rows
    assert (base["speedup"], base["encoder_ms"], "selection_ms" in base, "of_ideal" in base) == (
        1.0,
        40.0,
        False,
        False,
    )
    assert (pruned["speedup"], pruned["selection_ms"], pruned["prefill_ms"]) == (150 / 70, 2.0, 20.0)
    assert pruned["of_ideal"] == 70 / pruned["ideal_ms"]
    assert [(aim["value"], aim["met"]) for aim in made.aims] == [(70 / 150, True), (pruned["of_ideal"], True)]
    assert made.broken == []


def test_a_cache_that_is_not_as_predicted_breaks_the_result() -> None:
    made, found = report(), profile(20.0)
    full, pruned = found.variants
    rows(made, "tiny", "random", replace(found, variants=(full, replace(pruned, kv_bytes=pruned.kv_bytes + 1))))
    assert len(made.broken) == 1
    assert made.aims == []


def test_every_measured_shape_exists() -> None:
    assert BUDGETS.keys() <= SHAPES.keys()


def test_all_benchmarks_run_and_failures_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], check: bool) -> Any:
        ran.append(command[2:])
        return SimpleNamespace(returncode=command[2] == "benchmarks.decode")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(everything, "prepare", lambda options: None)
    options = arguments("test").parse_args(["--device", "cpu", "--quick"])
    options.only = "gpu.first_token,decode"
    with pytest.raises(SystemExit, match="failed: decode"):
        everything.main(options)
    assert ran == [[f"benchmarks.{name}", "--device", "cpu", "--quick"] for name in ("gpu.first_token", "decode")]
    ran.clear()
    options.quick, options.only = False, "gpu.first_token"
    everything.main(options)
    assert ran[0][-1].endswith("results/gpu/first_token.json")
