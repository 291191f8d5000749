"""Milliseconds of selection and prefill, measured apart from the answers: one question at a time, after a warm-up."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from vlm_pruner.engine import prune
from vlm_pruner.errors import VlmPrunerError
from vlm_pruner.evaluation.bench import Setup
from vlm_pruner.evaluation.cells import BLIND, Cell
from vlm_pruner.evaluation.decode import encode_pictures
from vlm_pruner.evaluation.questions import Asked
from vlm_pruner.evaluation.runner import Runner, Task
from vlm_pruner.evaluation.single import Single, Singles

__all__ = ["measure_cells"]


def measure_cells(
    setup: Setup,
    cells: Sequence[Cell],
    asked: Sequence[Asked],
    *,
    repeats: int = 5,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Medians of `repeats` prefills of each of the questions `asked`, seed 0 of every cell, first run not counted.

    The methods take turns, so that a busy moment of the machine does not fall on one of them alone. The vision tower is
    not part of the prefill time; its own time is given once.

    Returns:
        JSON values: `hardware`, `vision_ms` (None where pictures are encoded with each prompt), and
        `methods[label@budget]` with `select_ms` and `prefill_ms`.
    """
    runner = setup.runner()
    tasks = [runner.task([[a]]) for a in asked]
    timed = {f"{c.label}@{c.budget}": c for c in cells if c.seed == 0 and c.label != BLIND}
    samples: dict[str, list[tuple[float, float]]] = {key: [] for key in timed}
    vision = []
    for repeat in range(repeats + 1):
        for task in tasks:
            if isinstance(task, Task):
                started = time.perf_counter()
                encode_pictures(setup.model, task.prompts.pixels, task.prompts.kind)
                vision.append((time.perf_counter() - started) * 1000)
            for key, cell in timed.items():
                if key not in samples:
                    continue
                try:
                    sample = _prefill(runner, cell, task)
                except VlmPrunerError:
                    del samples[key]
                    continue
                if repeat:
                    samples[key].append(sample)
        progress(repeat + 1, repeats + 1)
    return {
        "hardware": _hardware(setup.model),
        "questions": len(asked),
        "repeats": repeats,
        "vision_ms": round(median(vision), 2) if vision else None,
        "methods": {key: _medians(values) for key, values in samples.items()},
    }


@torch.inference_mode()
def _prefill(runner: Runner | Single, cell: Cell, task: Task | Singles) -> tuple[float, float]:
    """(selection, prefill) milliseconds of one forward; the pictures are encoded before."""
    if isinstance(runner, Single):
        assert isinstance(task, Singles)
        report = runner.prefill(cell, task)
        return report.selection_ms or 0.0, report.prefill_ms or 0.0
    assert isinstance(task, Task)
    prompts, encoded = runner.encoded(task, cell.small_picture)
    ids = prompts.ids[0][None]
    with prune(runner.model, cell.plan) as session:
        runner.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, logits_to_keep=1,
            mm_encoder_outputs={prompts.kind: encoded},
        )  # fmt: skip
    report = session.report
    return report.selection_ms or 0.0, report.prefill_ms or 0.0


def _medians(samples: Sequence[tuple[float, float]]) -> Mapping[str, float]:
    select, prefill = zip(*samples, strict=True)
    return {"select_ms": round(median(select), 3), "prefill_ms": round(median(prefill), 3)}


def _hardware(model: Any) -> dict[str, Any]:
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
