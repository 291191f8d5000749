"""`vlm-pruner methods` and `vlm-pruner models`: lists made from the registries."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_pruner.cli.console import console, print_json, print_rows, progress, quiet
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Json
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.errors import InputError

if TYPE_CHECKING:
    from vlm_pruner.asking import Entry
    from vlm_pruner.methods import PruningMethod
    from vlm_pruner.plan import PrunePlan

__all__ = ["methods", "models"]


def methods(
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Try every method on this model, and say which ones cannot run and why."),
    ] = None,
    json: Json = False,
    pruning: Pruning,
    opening: Opening,
) -> None:
    """List the pruning methods, best first: where they prune, how many tokens they leave, and their papers."""
    from vlm_pruner.asking import catalogue

    opening.check()
    pruning.register()
    plan = pruning.plan()
    if model is None:
        opening.unused("name one with --model")
        if plan is not None or pruning.parameters:
            raise InputError("--plan and --set are tried on a model: name it with --model")
    reasons = None if model is None else _tried(model, opening, pruning, plan)
    known = catalogue()
    if json:
        rows = [asdict(entry) | _fitting(reasons, entry.name) for entry in known]
        print_json([*rows, *([{"name": pruning.named} | _fitting(reasons, pruning.named)] if plan else [])])
    elif reasons is not None:
        tried = [(name, "no" if why else "yes", why) for name, why in reasons.items()]
        print_rows(("name", "runs on\nthis model", "why not"), tried)
    else:
        print_rows(("name", "prunes before", "left,\na layer", "reads\nquestion", "what it does"), map(_row, known))
        console().print(_LEGEND, style="dim", soft_wrap=True)


_LEGEND = (
    "The best methods come first, by accuracy on the offline benchmark at equal cost; those that were not measured "
    "there follow by name. Left, a layer: the tokens left at the end, and the mean over the layers, with --keep 64 of "
    "576 tokens in 32 layers. Reads question: such a method may keep other tokens for another question."
)


def _row(entry: Entry) -> tuple[str, ...]:
    needs = f"; needs {', '.join(entry.needs)}" if entry.needs else ""
    about = f"{entry.title}: {entry.summary} ({entry.source}{needs})"
    counts = f"{entry.left}, {entry.layer_average:.0f}"
    return entry.name, entry.place, counts, "yes" if entry.question_aware else "no", about


def _tried(name: str, opening: Opening, pruning: Pruning, plan: PrunePlan | None) -> dict[str, str]:
    """Every method, and the plan, with the reason why the model of that name cannot run it."""
    from vlm_pruner import asking
    from vlm_pruner.methods import registry

    tried: dict[str, PruningMethod | PrunePlan] = {**pruning.methods(list(registry()))}
    if plan is not None:
        tried[pruning.named] = plan
    with progress(f"loading {name}") as say:
        loaded = opening.open(name)
        inputs = loaded.inputs("What is this?", asking.open_image(asking.DEMO_IMAGE))
        return asking.fits(loaded.model, inputs, tried, progress=say)


def _fitting(reasons: dict[str, str] | None, name: str) -> dict[str, Any]:
    return {} if reasons is None else {"runs": not reasons[name], "why_not": reasons[name]}


def models(json: Json = False) -> None:
    """List the embedded model, the model families that can be pruned, and why the others cannot."""
    from vlm_pruner.adapters.table import support_table
    from vlm_pruner.asking import EMBEDDED

    quiet()
    inside = "Inside the package: small, trained from scratch, nothing to download"
    rows = [(EMBEDDED, True, inside), *((row.model_type, row.works, row.why) for row in support_table())]
    if json:
        print_json([{"name": name, "works": works, "why": why} for name, works, why in rows])
        return
    head = ("model, or model_type of a checkpoint", "works", "where its tokens lie, or what stands in the way")
    print_rows(head, [(name, "yes" if works else "no", why) for name, works, why in rows])
