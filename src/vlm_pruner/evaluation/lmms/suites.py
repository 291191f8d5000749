"""Lists of tasks by name, and the number of each task that tables of the field show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vlm_pruner.errors import InputError, unknown_name

__all__ = ["SUITES", "numbers_of", "published_row", "score_of", "tasks_of"]

SUITES = {
    "paper": (
        "gqa", "mmbench_en_dev", "mme", "pope", "scienceqa_img", "textvqa_val", "ocrbench", "seedbench",
        "ok_vqa_val2014",
    ),
    "ocr": ("textvqa_val", "docvqa_val", "chartqa", "infovqa_val", "ocrbench"),
    "grounding": ("refcoco_bbox_rec_val",),
    "hallucination": ("pope", "hallusion_bench_image"),
    "paper-video": ("videomme", "mlvu_dev", "longvideobench_val_v", "egoschema_subset"),
    "video": (
        "videomme", "mlvu_dev", "longvideobench_val_v", "egoschema_subset", "nextqa_mc_test", "perceptiontest_val_mc",
        "tempcompass_multi_choice",
    ),
}  # fmt: skip
"""`--suite NAME` stands for these tasks. "paper" is Table 1 of arXiv:2512.02700. Which video benchmarks its Table 4 has
we could not read; "paper-video" are four that papers on video tokens share."""

_METRICS = {
    "mmbench_en_dev": ("gpt_eval_score",),
    "mme": ("mme_perception_score", "mme_cognition_score"),
    "pope": ("pope_f1_score",),
    "ocrbench": ("ocrbench_accuracy",),
    "seedbench": ("seed_image",),
    "docvqa_val": ("anls",),
    "infovqa_val": ("anls",),
    "chartqa": ("relaxed_overall",),
    "hallusion_bench_image": ("aAcc",),
    "refcoco_bbox_rec_val": ("refcoco_ACC@0.5",),
    "egoschema_subset": ("score",),
    "tempcompass_multi_choice": ("avg_accuracy",),
}
"""Several are added up."""


def tasks_of(suite: str) -> list[str]:
    """The tasks of a suite.

    Raises:
        InputError: there is none of that name.
    """
    if suite not in SUITES:
        raise InputError(unknown_name("suite", suite, SUITES))
    return list(SUITES[suite])


def score_of(task: str, numbers: Mapping[str, float]) -> tuple[str, float]:
    """The name and the value of the number that stands for a task, of the `numbers_of` it.

    Raises:
        InputError: a task without any number.
    """
    wanted = [name for name in _METRICS.get(task, ()) if name in numbers] or list(numbers)[:1]
    if not wanted:
        raise InputError(f"task {task!r} gave no number: it needs something that is not here (a key, a judge)")
    return "+".join(wanted), sum(numbers[name] for name in wanted)


def numbers_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Every metric of a task by its name, of what lmms-eval found; standard errors left out."""
    return {
        name.split(",")[0]: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and "stderr" not in name and "," in name
    }


@cache
def _published() -> dict[str, Any]:
    return dict(json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8")))


def published_row(model: str, method: str, budget: int | float) -> float | None:
    """Per cent of the unpruned model in the paper's tables, mean over the tasks of "paper"; None where there is none.

    Args:
        model: name of the checkpoint; its last part is looked for.
        budget: tokens, or the share that is kept.
    """
    name = model.rstrip("/").rpartition("/")[2].lower()
    table: dict[str, dict[str, float]] = next((rows for key, rows in _published()["models"].items() if key in name), {})
    value = table.get(method, {}).get(f"{budget:g}")
    return None if value is None else float(value)
