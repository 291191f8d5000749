"""`vlm-pruner tune`: how few tokens a model can do with on your pictures, found without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_pruner.budget import parse_keep
from vlm_pruner.cli.console import complain, console, progress, quiet
from vlm_pruner.cli.files import RESULTS, present, saving, writable
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Bias, parse_list
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.errors import BackendUnavailableError, InputError, PlanError

if TYPE_CHECKING:
    from vlm_pruner.asking import Loaded
    from vlm_pruner.evaluation.by_density import DensityPlans
    from vlm_pruner.evaluation.own import OwnQuestion
    from vlm_pruner.evaluation.tuning import Tuned
    from vlm_pruner.methods import PruningMethod
    from vlm_pruner.plan import PrunePlan

__all__ = ["tune"]

METHODS = "vlm-pruner,vlm-pruner-plus,divprune,dart,grid"
BUDGETS = "0.5,0.333,0.222,0.111"
ASKED = ("What is the main thing in the picture? Answer with one word.", "What is written in the picture?")


def tune(
    *,
    model: Annotated[str, typer.Argument(help="'embedded', a checkpoint folder, or a hub id.", show_default=False)],
    images: Annotated[Path, typer.Argument(help="Folder of pictures, or a .jsonl file as for `bench --data`.")],
    questions: Annotated[
        Path | None,
        typer.Option("--questions", help="Text file with one question a line; each is asked about every picture."),
    ] = None,
    max_loss: Annotated[
        float, typer.Option("--max-loss", help="Largest share of answers that may differ from the unpruned model's.")
    ] = 0.1,
    confidence: Annotated[
        float, typer.Option("--confidence", help="How sure the promise of --max-loss shall be.")
    ] = 0.9,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Methods to try, separated by commas.", show_default=METHODS)
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Budgets to try, separated by commas.", show_default=BUDGETS)
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Layers to try: decoder layers, 'tower', or 'default' for each method's own.",
            show_default="default",
        ),
    ] = None,
    bias: Bias = None,
    pruning: Pruning,
    cost: Annotated[str, typer.Option("--cost", help="What the plan shall save: flops, tokens or time.")] = "flops",
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write the plan to.")] = Path("plan.json"),
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first so many pictures.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")] = 16,
    opening: Opening,
) -> None:
    """Find the cheapest plan that changes few of the model's answers on your pictures. Needs no labels."""
    present(images, "folder of pictures")
    present(questions, "file of questions")
    opening.check()
    from vlm_pruner.evaluation.density import stroke_density  # with torch and transformers
    from vlm_pruner.evaluation.fidelity import Meter
    from vlm_pruner.evaluation.own import ask_own
    from vlm_pruner.evaluation.tuning import tune as find
    from vlm_pruner.evaluation.tuning_groups import remembered, tune_groups
    from vlm_pruner.plan import parse_bias

    writable(output, RESULTS)
    for path in _beside(output):
        writable(path)
    own = _questions(images, questions, limit)
    pruning.register()
    plan = pruning.plan(methods=methods, keep=keep, layers=layers, bias=bias)
    budgets = [parse_keep(text) for text in parse_list(keep or BUDGETS)]
    names = (
        pruning.methods(parse_list(methods or METHODS)),
        budgets,
        parse_list(layers or "default"),
        parse_bias(bias),
    )
    quiet()
    with progress(f"loading {model}") as say:
        loaded = opening.open(model)
        plans, left_out = _plans(*names, loaded) if plan is None else ([loaded.plan(plan)], [])
        say("reading pictures", 0.0)
        asked = ask_own(loaded.model, loaded.processor, own)
        densities = {one.scene: max(map(stroke_density, one.stills)) for one in asked}
        meter = Meter(loaded.model, loaded.processor, max_new_tokens=max_new_tokens)
        trials = remembered(meter.trials)
        sought: dict[str, Any] = {"max_loss": max_loss, "confidence": confidence, "cost": cost, "progress": say}
        tuned = find(asked, plans, trials, densities=densities, **sought)
        groups = tune_groups(asked, plans, trials, densities, **sought)
    tuned.left_out[:0] = left_out
    _tell(tuned, groups, output)


def _beside(output: Path) -> list[Path]:
    """All that was measured, the picture of the front, and the plans of the groups of pictures."""
    return [output.with_suffix(ending) for ending in (".tuning.json", ".png", ".auto.json")]


def _questions(images: Path, texts: Path | None, limit: int | None) -> list[OwnQuestion]:
    from vlm_pruner.asking.videos import pictures_in
    from vlm_pruner.evaluation.own import questions_about, read_questions

    if images.suffix == ".jsonl":
        if texts is not None:
            raise InputError(f"{str(images)!r} has the questions already: leave --questions out")
        own = read_questions(images, labelled=False)
        first = list(dict.fromkeys(one.images for one in own))[:limit]
        return [one for one in own if one.images in first]
    lines: Sequence[str] = ASKED
    if texts is not None:
        try:
            lines = [line.strip() for line in texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read questions from {str(texts)!r}: {error}") from error
        if not lines:
            raise InputError(f"{str(texts)!r} holds no questions")
    return questions_about(pictures_in(images)[:limit], lines)


def _plans(
    methods: Mapping[str, PruningMethod], budgets: Sequence[Any], layers: Sequence[str], bias: Any, loaded: Loaded
) -> tuple[list[PrunePlan], list[dict[str, str]]]:
    """The candidates, and those that make no plan, with the reason."""
    from vlm_pruner.plan import parse_layer

    plans: dict[str, PrunePlan] = {}
    left_out = []
    for name, method in methods.items():
        for budget in budgets:
            for layer in layers:
                if layer not in ("default", "tower") and not layer.isdecimal():
                    raise InputError(f"--layers has numbers, 'tower' and 'default', not {layer!r}")
                try:
                    place = None if layer == "default" else parse_layer(layer)
                    plan = loaded.plan(method, budget, place, bias=bias)
                except PlanError as error:
                    left_out.append({"name": f"{name} {budget} at layer {layer}", "reason": str(error)})
                    continue
                plans.setdefault(plan.fingerprint(), plan)
    if not plans:
        raise InputError(f"no candidate can be carried out: {left_out[0]['reason']}")
    return list(plans.values()), left_out


def _tell(tuned: Tuned, groups: DensityPlans, output: Path) -> None:
    """The table on the screen; the plans, the record and the picture of the front as files."""
    from vlm_pruner.asking import name_of
    from vlm_pruner.evaluation.results import write_json
    from vlm_pruner.evaluation.tuning_pages import front_plot, recommendation, tuning_table
    from vlm_pruner.report import provenance

    out = console()
    out.print(tuning_table(tuned), markup=False, soft_wrap=True)
    record, picture, auto = _beside(output)
    with saving(record):
        write_json(record, tuned.to_dict() | {"about": provenance()})
    written = [record]
    try:
        with saving(picture):
            front_plot(tuned, picture)
        written.append(picture)
    except BackendUnavailableError as error:
        complain(str(error))
    if tuned.plan is not None:
        with saving(output):
            output.write_text(tuned.plan.to_json() + "\n", encoding="utf-8")
        written.insert(0, output)
    with saving(auto):
        auto.write_text(groups.to_json() + "\n", encoding="utf-8")
    written.append(auto)
    out.print("\n" + recommendation(tuned), markup=False, soft_wrap=True)
    for name, words in groups.told.items():
        plan = getattr(groups, name)
        out.print(
            f"{name} pictures: {'' if plan is None else name_of(plan) + ' '}{words}", markup=False, soft_wrap=True
        )
    out.print("written: " + ", ".join(map(str, written)), markup=False, soft_wrap=True)
