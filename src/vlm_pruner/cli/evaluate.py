"""`vlm-pruner eval`: the benchmarks of the field through lmms-eval, with the yardsticks and the published rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_pruner.budget import Keep, parse_keep
from vlm_pruner.cli.console import console, progress, quiet
from vlm_pruner.cli.evaluate_recipe import Official, RecipeName, Steps, chosen
from vlm_pruner.cli.files import saving, writable
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import COSTS, Fps, Frames, check_equal, parse_list
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.errors import BackendUnavailableError, InputError

if TYPE_CHECKING:
    from vlm_pruner.evaluation.lmms.run import Evaluated
    from vlm_pruner.methods import PruningMethod
    from vlm_pruner.plan import PrunePlan

__all__ = ["eval"]


def eval(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="'embedded', a checkpoint folder, or a hub id.", show_default="the recipe's, else embedded"
        ),
    ] = None,
    tasks: Annotated[
        str, typer.Option("--tasks", help="Tasks of lmms-eval, separated by commas; 'scenes' is the offline benchmark.")
    ] = "",
    suite: Annotated[
        str, typer.Option("--suite", help="A set of tasks: paper, ocr, grounding, hallucination, paper-video or video.")
    ] = "",
    methods: Annotated[
        str | None, typer.Option("--methods", help="Methods, separated by commas.", show_default="vlm-pruner")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="Budgets, separated by commas; shares if pictures have different numbers of tokens.",
            show_default="64",
        ),
    ] = None,
    pruning: Pruning,
    equal: Annotated[
        str,
        typer.Option("--equal", help=COSTS),
    ] = "nominal",
    yardsticks: Annotated[
        bool,
        typer.Option(
            "--yardsticks/--no-yardsticks",
            help="Also run simple baselines: random tokens, a regular grid, and smaller pictures.",
        ),
    ] = True,
    hard: Annotated[
        bool, typer.Option("--hard", help="Also score the samples that down-sampled pictures get wrong.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="How many requests the model answers at a time.")
    ] = 1,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Use only the first so many samples of each task.")
    ] = None,
    include_path: Annotated[Path | None, typer.Option("--include-path", help="Folder with tasks of your own.")] = None,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", min=1, help="Scale pictures down to at most so many pixels.")
    ] = None,
    fps: Fps = None,
    frames: Frames = None,
    recipe: RecipeName = None,
    official: Official = "",
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder for the results; after an interruption the same command continues there."
        ),
    ] = Path("eval"),
    opening: Opening,
) -> None:
    """Run benchmarks of lmms-eval with and without pruning, and compare with baselines and published numbers."""
    from vlm_pruner.video import Sampling

    opening.check()
    check_equal(equal)
    sampling = Sampling(fps, frames)
    pruning.register()
    steps = chosen(recipe, official)
    plan = pruning.plan(methods=methods, keep=keep, recipe=recipe)
    names, budgets = _wanted(methods, keep, pruning, steps, plan)
    limits = (None, max_pixels) if steps is None else steps.pixels(model, max_pixels)
    given = opening.given()
    model, given["dtype"], suite = (
        (model or "embedded", opening.dtype, suite) if steps is None else steps.over(model, opening.dtype, suite, tasks)
    )
    writable(output / "eval.json")
    quiet()
    _needs_lmms_eval()
    from vlm_pruner.evaluation.cells import price_named
    from vlm_pruner.evaluation.lmms import run
    from vlm_pruner.evaluation.lmms.arguments import open_with

    with progress(f"loading {model}") as say:
        wanted, folder = _tasks(tasks, suite, include_path, output, limit)
        manager = run.find_tasks(wanted, folder)
        loaded = open_with(model, *limits, **given)
        cells, left_out = run.cells_of(
            loaded, names, budgets, yardsticks=yardsticks or hard, equal=price_named(equal, loaded.model)
        )
        cells += [] if steps is None else steps.cells(loaded)
        found, late = run.evaluate(
            loaded, cells, wanted, output, manager=manager, batch_size=batch_size, limit=limit,
            sampling=sampling, tell=say,
        )  # fmt: skip
    if not int(os.environ.get("RANK", "0")):
        about = run.about(loaded) | {"model": model, "tasks": wanted, "limit": limit, "equal": equal}
        about |= {"fps": fps, "frames": frames}
        _tell(about, found, [*left_out, *late], output, hard)


def _wanted(
    methods: str | None, keep: str | None, pruning: Pruning, steps: Steps | None, plan: PrunePlan | None
) -> tuple[dict[str, str | PruningMethod | PrunePlan], list[Keep]]:
    """Methods by their labels, and the budgets of theirs and of the yardsticks.

    Raises:
        InputError, PlanError: as of `Pruning.wanted`.
    """
    if steps is not None:
        given = {"--methods": methods, "--keep": keep, "--set": pruning.parameters}
        if beside := ", ".join(name for name, value in given.items() if value):
            raise InputError(f"--recipe says which methods, how much and how: leave out {beside}")
        return {}, list(steps.recipe.keep)
    if plan is not None:
        return {pruning.named: plan}, [plan.nominal]
    budgets = [parse_keep(text) for text in parse_list(keep or "64")]
    return dict(pruning.labelled(parse_list(methods or "vlm-pruner"))), budgets


def _tell(
    about: dict[str, Any], cells: Sequence[Evaluated], left_out: list[dict[str, Any]], output: Path, hard: bool
) -> None:
    """The table on the screen and as a file, and everything as JSON."""
    from vlm_pruner.evaluation.lmms.retention import report
    from vlm_pruner.evaluation.results import write_json

    text = report(about["model"], cells, about["tasks"], left_out, hard)
    console().print(text, markup=False, soft_wrap=True)
    with saving(output):
        write_json(output / "eval.json", {**about, "cells": [asdict(cell) for cell in cells], "left_out": left_out})
        (output / "eval.md").write_text(text, encoding="utf-8")
    console().print(f"written: {output / 'eval.json'}, {output / 'eval.md'}", markup=False, soft_wrap=True)


def _tasks(
    tasks: str, suite: str, include: Path | None, output: Path, limit: int | None
) -> tuple[list[str], Path | None]:
    """Names of the tasks, and the folder in which some of them are."""
    from vlm_pruner import scenes
    from vlm_pruner.evaluation.lmms.scenes_task import TASK, write_scenes
    from vlm_pruner.evaluation.lmms.suites import tasks_of

    if bool(tasks) == bool(suite):
        raise InputError("say what to run: --tasks or --suite" + (", not both" if tasks else ""))
    wanted = tasks_of(suite) if suite else parse_list(tasks)
    if "scenes" not in wanted:
        return wanted, include
    if include is not None:
        raise InputError("'scenes' is written to a folder of its own: leave --include-path out")
    each = None if limit is None else min(scenes.PER_TYPE, -(-limit // len(scenes.TYPES)))
    return [TASK if name == "scenes" else name for name in wanted], write_scenes(output / "scenes", "test", each)


def _needs_lmms_eval() -> None:
    """Raise where lmms-eval is not installed; what it says while it works is left out.

    Raises:
        BackendUnavailableError: as it says.
    """
    if find_spec("lmms_eval") is None:
        raise BackendUnavailableError("`vlm-pruner eval` needs lmms_eval: pip install 'vlm-pruner[eval]'")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import_module("loguru").logger.disable("lmms_eval")
