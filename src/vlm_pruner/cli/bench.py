"""`vlm-pruner bench`: methods x budgets x seeds on the questions of a split, as JSON, tables and curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_pruner.budget import Keep, parse_keep
from vlm_pruner.cli.bench_data import Data, Longest, Matching, about_data, load_data
from vlm_pruner.cli.console import complain, console, note, progress
from vlm_pruner.cli.files import RESULTS, present, saving, writable
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import COSTS, Bias, Model, check_equal, parse_list
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.errors import BackendUnavailableError, InputError

if TYPE_CHECKING:
    from vlm_pruner.evaluation.bench import Setup
    from vlm_pruner.evaluation.results import BenchResults
    from vlm_pruner.methods import PruningMethod
    from vlm_pruner.plan import PrunePlan

__all__ = ["bench"]


def bench(
    *,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Methods, separated by commas, or 'all'; the unpruned model ('none') is always measured.",
            show_default="all",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="Budgets, separated by commas; shares if pictures have different numbers of tokens.",
            show_default="192,128,64,32; 0.333,0.222,0.111,0.056 where pictures have no fixed number of tokens",
        ),
    ] = None,
    bias: Bias = None,
    pruning: Pruning,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", min=1, help="How many times a method with random numbers runs, each with another seed."
        ),
    ] = 5,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Ask only the first so many questions of each type.")
    ] = None,
    split: Annotated[
        str,
        typer.Option("--split", help="Which questions: test or validation; about videos: video or video-validation."),
    ] = "test",
    data: Data = None,
    match: Matching = "normalised",
    max_new_tokens: Longest = 32,
    equal: Annotated[
        str | None,
        typer.Option(
            "--equal",
            help=COSTS,
            show_default="nominal",
        ),
    ] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Ask one question of each type at 64 tokens, to see that everything runs.")
    ] = False,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The .json file to write; tables, curves, times and answers are written beside it."
        ),
    ] = Path("bench.json"),
    jobs: Annotated[
        int, typer.Option("--jobs", min=0, help="How many processes; 0: one for each core, or one on a GPU.")
    ] = 0,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats", min=0, help="How many prefills are timed for each method; 0: times are not measured."
        ),
    ] = 5,
    model: Model = "embedded",
    opening: Opening,
) -> None:
    """Measure how many questions methods answer right, and what that costs. After an interruption it continues."""
    present(data, "file of questions")
    opening.check()
    from vlm_pruner.asking import one_token  # and what follows, with torch and transformers
    from vlm_pruner.evaluation.bench import describe, run_bench
    from vlm_pruner.evaluation.cells import build_grid
    from vlm_pruner.evaluation.timing import measure_cells
    from vlm_pruner.report import provenance

    pruning.register()
    check_equal(equal)
    budgets = None if keep is None else [parse_keep(text) for text in parse_list(keep)]
    model, video = _shown(model, split, data)
    plan, measured = _measured(methods, keep, equal, bias, pruning, video)
    _check_outputs(output)
    limit, seeds, repeats = (1, 2, min(repeats, 1)) if tiny else (limit, seeds, repeats)
    load, asked = _source(model, opening, pruning, (split, limit), data, (limit, match, max_new_tokens))
    with progress(f"loading {model}"):
        setup = load()
        about = describe(setup, model)
    _tell_unasked(setup)
    budgets = budgets or ([] if plan else _budgets(about["tokens"], tiny, video))
    note(one_token(budgets, about["tokens"] or 0))
    grid = build_grid(
        measured, budgets, seeds=seeds, layers=about["layers"], tokens=about["tokens"], equal=setup.price(equal),
        make=setup.plan if bias is None else partial(setup.plan, bias=bias),
    )  # fmt: skip
    workers = jobs or (1 if setup.model.device.type == "cuda" else os.cpu_count() or 1)
    with progress("answers") as say, _told_where(output):
        results = run_bench(
            load, grid, output, name=model, split=asked(), setup=setup, workers=workers,
            about=provenance(), progress=lambda done, total: say(f"{done} of {total} answers", done / max(1, total)),
        )  # fmt: skip
        timing = {}
        if repeats:
            timing = provenance() | measure_cells(
                setup, grid.cells, setup.questions[:1], repeats=repeats,
                progress=lambda done, total: say(f"timed {done} of {total} times", done / total),
            )  # fmt: skip
    _write(results, timing, output)


def _source(
    model: str, opening: Opening, pruning: Pruning,
    scenes: tuple[str, int | None], data: Path | None, own: tuple[int | None, str, int],
) -> tuple[Callable[[], Setup], Callable[[], dict[str, Any]]]:  # fmt: skip
    """What loads the model with the questions, and what tells of them for the record: our scenes, or your own."""
    if data is None:
        return partial(load_setup, model, opening, *scenes, pruning), partial(about_split, *scenes)
    return partial(load_data, model, opening, data, *own, pruning), partial(about_data, data, *own)


def _measured(
    methods: str | None, keep: str | None, equal: str | None, bias: str | None, pruning: Pruning, video: bool
) -> tuple[PrunePlan | None, dict[str, Any]]:
    """The finished plan, if one was given, and what is measured by its label.

    Raises:
        InputError, PlanError: as of `Pruning.plan`, `_methods` and `parse_bias`.
    """
    from vlm_pruner.plan import parse_bias

    parse_bias(bias)
    plan = pruning.plan(methods=methods, keep=keep, equal=equal, bias=bias)
    if plan is not None:
        return plan, {"none": "none", pruning.named: plan}
    return None, dict(_methods(methods or "all", pruning, video))


def _methods(methods: str, pruning: Pruning, video: bool) -> dict[str, str | PruningMethod]:
    """What is measured, by its label; 'none' in any case: all that is told is a share of its accuracy.

    On a split of videos, whole frames are among it.

    Raises:
        PlanError: a parameter that is not known, or one that the benchmark sets itself.
    """
    from vlm_pruner.evaluation.cells import default_methods
    from vlm_pruner.evaluation.frames import FRAMES

    names = [*default_methods(), *(FRAMES if video else ())] if methods == "all" else parse_list(methods)
    names = names if "none" in names else ["none", *names]
    own = [name for name in names if video and name in FRAMES]
    registered = [name for name in names if name not in own]
    if drawn := [name for name, values in pruning.set_on(registered).items() if "seed" in values]:
        raise InputError(
            f"--set {drawn[0]}.seed cannot be used: the benchmark runs the method with the seeds 0 to N-1 of --seeds N"
        )
    return pruning.labelled(registered) | {name: FRAMES[name] for name in own}


def _tell_unasked(setup: Setup) -> None:
    """What is left out of the questions, a line each."""
    from vlm_pruner.evaluation.table import unasked_lines

    for line in unasked_lines([vars(one) for one in setup.unasked]):
        note(line)


def _beside(output: Path) -> dict[str, Path]:
    """What is written beside the results, by what it is."""
    endings = {"answers": ".answers.jsonl", "times": ".timing.json", "tables": ".md", "curves": ".png"}
    return {name: output.with_suffix(ending) for name, ending in endings.items()}


def _check_outputs(output: Path) -> None:
    """Raise where something that will be written cannot be.

    Raises:
        InputError: as of `writable`.
    """
    for path in (output, *_beside(output).values()):
        writable(path, RESULTS if path == output else ())


def _shown(model: str, split: str, data: Path | None) -> tuple[str, bool]:
    """The model that is asked, and whether it is about videos: the embedded model has a form of its own for these."""
    from vlm_pruner.asking import EMBEDDED, EMBEDDED_VIDEO
    from vlm_pruner.evaluation.videos import VIDEO_SPLITS

    video = data is None and split in VIDEO_SPLITS
    return EMBEDDED_VIDEO if video and model == EMBEDDED else model, video


def _budgets(tokens: int | None, tiny: bool, video: bool) -> list[Keep]:
    """The usual budgets: counts, or about the same shares where pictures have no fixed number of tokens.

    Those of videos are shares, as their methods publish figures.
    """
    if video:
        return [0.1] if tiny else [0.25, 0.15, 0.1]
    if tokens is None:
        return [0.111] if tiny else [0.333, 0.222, 0.111, 0.056]
    return [64] if tiny else [192, 128, 64, 32]


@contextmanager
def _told_where(output: Path) -> Iterator[None]:
    """Ctrl-C within the block is told in one line: every answer is on the disk as soon as it is there."""
    try:
        yield
    except KeyboardInterrupt:
        complain(
            f"stopped; what was answered is in {_beside(output)['answers']}, and the same command goes on from there"
        )
        raise typer.Exit(130) from None


def load_setup(name: str, opening: Opening, split: str, limit: int | None, pruning: Pruning | None = None) -> Setup:
    """The model and the questions; worker processes call it too."""
    from vlm_pruner.evaluation.bench import Setup
    from vlm_pruner.evaluation.questions import ask_split
    from vlm_pruner.evaluation.videos import VIDEO_SPLITS, ask_motion

    if pruning is not None:
        pruning.register()
    loaded = opening.open(name)
    ask = ask_motion if split in VIDEO_SPLITS else ask_split
    return Setup.of(loaded.model, loaded.processor, ask(loaded.model, loaded.processor, split, limit))


def about_split(split: str, limit: int | None) -> dict[str, Any]:
    """What was asked, for the record: versioned, and with the digest of the questions."""
    from vlm_pruner import scenes
    from vlm_pruner.evaluation.videos import VIDEO_SPLITS, about_motion

    if split in VIDEO_SPLITS:
        return about_motion(split, limit)
    questions = scenes.load_split(split, limit)
    return {
        "name": split, "version": scenes.VERSION, "per_type": limit or scenes.PER_TYPE,
        "fingerprint": scenes.fingerprint(questions),
    }  # fmt: skip


def _write(results: BenchResults, timing: dict[str, Any], output: Path) -> None:
    """The tables on the screen; times, tables and curves beside the results."""
    from vlm_pruner.evaluation.plots import plot_curves
    from vlm_pruner.evaluation.results import write_json
    from vlm_pruner.evaluation.table import markdown

    beside, written, out = _beside(output), [output], console()
    text = markdown(results, timing.get("methods"))
    out.print(text, markup=False, soft_wrap=True)
    if timing:
        with saving(beside["times"]):
            write_json(beside["times"], timing)
        written.append(beside["times"])
    with saving(beside["tables"]):
        beside["tables"].write_text(text, encoding="utf-8")
    written.append(beside["tables"])
    try:
        with saving(beside["curves"]):
            written.append(plot_curves(results, beside["curves"]))
    except BackendUnavailableError as error:
        complain(str(error))
    out.print("written: " + ", ".join(map(str, written)), markup=False, soft_wrap=True)
