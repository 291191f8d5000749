"""Cells of a grid on tasks of lmms-eval: one after the other on one model, each on the disk when it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.distributed as dist

from vlm_pruner import __version__
from vlm_pruner.asking import Loaded
from vlm_pruner.budget import Keep
from vlm_pruner.errors import InputError, VlmPrunerError, first_line, unknown_name
from vlm_pruner.evaluation.cells import DOWNSAMPLE, Price, build_grid
from vlm_pruner.evaluation.lmms.answers import key_of, said_of
from vlm_pruner.evaluation.lmms.arguments import Treatment, treatment
from vlm_pruner.evaluation.lmms.suites import numbers_of, score_of
from vlm_pruner.evaluation.questions import picture_tokens
from vlm_pruner.evaluation.results import write_json
from vlm_pruner.methods import PruningMethod
from vlm_pruner.plan import PrunePlan
from vlm_pruner.report import provenance
from vlm_pruner.video import Sampling

__all__ = ["Evaluated", "Task", "about", "cells_of", "evaluate", "find_tasks"]

YARDSTICKS = ("none", "random", "grid", DOWNSAMPLE)
"""What every table shows unless it is told not to."""

USUAL = Sampling()

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Task:
    """One cell that shall be evaluated."""

    label: str
    budget: Keep
    how: Treatment


@dataclass(frozen=True)
class Evaluated:
    """One method at one budget: scores, what single samples came to, and what it cost."""

    label: str
    budget: Keep
    plan: dict[str, Any]
    scores: dict[str, float]  # per task
    metrics: dict[str, str]  # the name of each score
    numbers: dict[str, dict[str, float]]  # per task, every metric of it
    samples: dict[str, list[float]]  # per task, in the order of its documents; only where the score is their mean
    means: dict[str, float]  # per request: tokens, MiB, milliseconds; see `answers.Reply`


def cells_of(
    loaded: Loaded,
    methods: Mapping[str, str | PruningMethod | PrunePlan],
    budgets: Sequence[Keep],
    *,
    yardsticks: bool = True,
    equal: Price | None = None,
) -> tuple[list[Task], list[dict[str, Any]]]:
    """The cells, the unpruned model first, and those that cannot be with the reason.

    Args:
        methods: by their label, finished plans among them.

    Raises:
        PlanError: an unknown method, or a budget that pictures of this model do not have.
    """
    names = {name: name for name in (YARDSTICKS if yardsticks else ("none",))} | dict(methods)
    shares = equal is None and all(isinstance(budget, float) for budget in budgets)
    tokens = None if shares else picture_tokens(loaded.model)  # a share of a video is none of a picture
    grid = build_grid(names, budgets, seeds=1, layers=loaded.layers, tokens=tokens, equal=equal, make=loaded.plan)
    cells = [
        Task(c.label, c.budget, Treatment(c.plan, c.label, c.small_picture, tokens if c.small_picture else None))
        for c in grid.cells
    ]
    left_out = [dict(item) for item in grid.left_out]
    if tokens is None and DOWNSAMPLE in names:
        left_out = [item for item in left_out if item["label"] != DOWNSAMPLE]
        cells += [Task(DOWNSAMPLE, b, treatment(loaded, method=DOWNSAMPLE, keep=b)) for b in budgets]
    return cells, left_out


def find_tasks(names: Sequence[str], folder: Path | None) -> Any:
    """lmms-eval's manager of tasks, if it knows all of the names.

    Raises:
        InputError: it does not.
    """
    from lmms_eval.tasks import TaskManager

    where = None if folder is None else str(folder)
    manager = TaskManager("ERROR", include_path=where, include_defaults=False) if where else None
    if manager is None or not set(names) <= set(manager.all_tasks):
        manager = TaskManager("ERROR", include_path=where)
    if missing := [name for name in names if name not in manager.all_tasks]:
        hint = unknown_name("task", missing[0], manager.all_tasks).split(" Known: ")[0]
        raise InputError(f"{hint} `lmms_eval --tasks list` lists all {len(manager.all_tasks)}")
    return manager


def evaluate(
    loaded: Loaded,
    cells: Sequence[Task],
    tasks: Sequence[str],
    out: Path,
    *,
    manager: Any,
    batch_size: int = 1,
    limit: int | None = None,
    sampling: Sampling = USUAL,
    tell: Tell = lambda *_: None,
) -> tuple[list[Evaluated], list[dict[str, Any]]]:
    """Every cell on every task; cells and answers that an earlier run left in `out` are not computed again.

    Args:
        sampling: which frames of videos are shown.

    Returns:
        What was found, empty on all processes but the first; and methods that cannot run, with the reason.

    Raises:
        InputError: a task that cannot be loaded or scored here.
    """
    found, left_out = [], []
    for number, cell in enumerate(cells):
        name = f"{cell.label}@{cell.budget}"
        path = out / "cells" / f"{name}.json"
        plan, seen = cell.how.plan.canonical(), [cell.how.detail, cell.how.area, *said_of(sampling)]
        key = key_of(_model(loaded), plan, seen, list(tasks), limit, batch_size)
        done = _read(path, key)
        if done is None:
            try:
                done = _one(
                    loaded, cell, tasks, out, manager, batch_size, limit, sampling,
                    lambda share, n=number, at=name: tell(at, (n + share) / len(cells)),  # type: ignore[misc]
                )  # fmt: skip
            except VlmPrunerError as error:
                if cell.label == "none" or isinstance(error, InputError):
                    raise
                left_out.append({"label": cell.label, "budget": cell.budget, "reason": str(error)})
                continue
            if done is not None:
                write_json(path, {"key": key, **asdict(done)})
        if done is not None:
            found.append(done)
    return found, left_out


def about(loaded: Loaded) -> dict[str, Any]:
    """What results depend on beside the cells: versions, precision and the resolution of pictures."""
    made = provenance()
    versions = made["versions"] | {"lmms_eval": version("lmms_eval")}
    return made | {"versions": versions, "dtype": str(loaded.model.dtype), "resolution": _resolution(loaded)}


def _model(loaded: Loaded) -> list[str]:
    return [__version__, loaded.name, str(loaded.model.dtype), _resolution(loaded)]


def _resolution(loaded: Loaded) -> str:
    return str(getattr(getattr(loaded.processor, "image_processor", None), "size", None))


def _read(path: Path, key: str) -> Evaluated | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Evaluated(**data) if data.pop("key") == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _one(
    loaded: Loaded,
    cell: Task,
    tasks: Sequence[str],
    out: Path,
    manager: Any,
    batch_size: int,
    limit: int | None,
    sampling: Sampling,
    tell: Callable[[float], None],
) -> Evaluated | None:
    """One cell; None on all processes but the first."""
    from lmms_eval.evaluator import simple_evaluate

    from vlm_pruner.evaluation.lmms.model import PrunedModel

    model = PrunedModel.of(loaded, cell.how, batch_size, str(out / "answers.jsonl"), sampling)
    model.tell = tell
    try:
        results = simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, batch_size=batch_size, limit=limit,
            log_samples=True, bootstrap_iters=0, verbosity="ERROR",
        )  # fmt: skip
    except VlmPrunerError:
        raise
    except Exception as error:  # tasks are programs, and load data from anywhere
        raise InputError(f"lmms-eval could not run {', '.join(tasks)}: {first_line(error)}") from error
    totals, requests = _together(model.totals(), len(model.replies))
    if not results:
        return None if int(os.environ.get("RANK", "0")) else _empty(tasks)
    numbers = {task: numbers_of(results["results"].get(task, {})) for task in tasks}
    named = {task: score_of(task, numbers[task]) for task in tasks}
    samples = {task: _samples(results["samples"].get(task, []), *named[task]) for task in tasks}
    return Evaluated(
        label=cell.label,
        budget=cell.budget,
        plan=cell.how.plan.to_dict(),
        scores={task: value for task, (_, value) in named.items()},
        metrics={task: metric for task, (metric, _) in named.items()},
        numbers=numbers,
        samples={task: values for task, values in samples.items() if values},
        means={name: round(total / max(1, requests), 4) for name, total in totals.items()},
    )


def _together(totals: dict[str, float], requests: int) -> tuple[dict[str, float], int]:
    """Sums over all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return totals, requests
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (totals, requests))
    return {name: sum(part[name] for part, _ in parts) for name in totals}, sum(count for _, count in parts)


def _empty(tasks: Sequence[str]) -> Evaluated:
    raise InputError(f"lmms-eval gave no results for {', '.join(tasks)}")


def _samples(rows: Sequence[Mapping[str, Any]], metric: str, score: float) -> list[float]:
    """The metric of every document in order; empty where the score is not simply their mean."""
    ordered = sorted(rows, key=lambda row: row["doc_id"])
    values = [row.get(metric) for row in ordered]
    if not values or not all(isinstance(value, int | float) for value in values):
        return []
    numbers = [float(value) for value in values if value is not None]
    return numbers if abs(sum(numbers) / len(numbers) - score) < 1e-6 else []
