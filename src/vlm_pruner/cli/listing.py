"""`vlm-pruner methods` and `vlm-pruner models`: lists made from the registries."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from vlm_pruner.cli.console import console, print_json, progress, quiet
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Json
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.errors import InputError

if TYPE_CHECKING:
    from vlm_pruner.methods import PruningMethod
    from vlm_pruner.plan import PrunePlan

__all__ = ["first_sentence", "methods", "models"]

LAYERS, TOKENS, KEEP = 32, 576, 64  # of the model and the budget that the list counts for


def methods(
    *,
    model: Annotated[
        str | None, typer.Option("--model", help="Try every method on this model, and say which cannot run and why.")
    ] = None,
    json: Json = False,
    pruning: Pruning,
    opening: Opening,
) -> None:
    """List the pruning methods: names, papers, where they prune, what they leave and what they need."""
    from vlm_pruner.methods import registry

    opening.check()
    pruning.register()
    plan = pruning.plan()
    if model is None:
        opening.unused("methods are tried on a model with --model")
        if plan is not None or pruning.parameters:
            raise InputError("--plan and --set are tried on a model: say which with --model")
    reasons = None if model is None else _tried(model, opening, pruning, plan)
    known = list(registry().values())
    if json:
        rows = [_as_json(cls) | _fitting(reasons, cls.name) for cls in known]
        print_json([*rows, *([{"name": pruning.named} | _fitting(reasons, pruning.named)] if plan else [])])
        return
    if reasons is not None:
        table = _table("name", "runs on\nthis model", "why not")
        for name, why in reasons.items():
            table.add_row(name, "no" if why else "yes", why)
        console().print(table)
        return
    table = _table("name", "prunes\nbefore", "left,\na layer", "asks", "needs", "method and source")
    table.columns[4].min_width = 16  # the longest signal in one piece, also on 80 columns
    for cls in known:
        place = cls.default_layer
        layer = "LLM" if place is None else place if isinstance(place, str) else f"layer {place}"
        needs = ", ".join(sorted(signal.value for signal in cls.needs)) or "-"
        left, average = _left(cls)
        about = f"{cls.title}: {cls.source}"
        counts = f"{left}, {average:.0f}"
        table.add_row(cls.name, layer, counts, "yes" if cls.question_aware else "no", needs, about)
    console().print(table)
    console().print(
        f"Left, a layer: of {TOKENS} tokens in {LAYERS} layers, what {KEEP} asked for leave at the end, and the mean "
        "over the layers. Asks: it reads the question.",
        style="dim",
    )


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


def _as_json(cls: type[PruningMethod]) -> dict[str, Any]:
    left, average = _left(cls)
    return {
        "name": cls.name,
        "title": cls.title,
        "source": cls.source,
        "layer": cls.default_layer,
        "asked": KEEP,
        "left": left,
        "layer_average": average,
        "question_aware": cls.question_aware,
        "needs": sorted(signal.value for signal in cls.needs),
        "summary": first_sentence(cls),
    }


def _left(cls: type[PruningMethod]) -> tuple[int, float]:
    """Tokens at the end and, mean over the layers, in a layer, where `KEEP` are asked for."""
    from vlm_pruner.budget import layer_average
    from vlm_pruner.plan import PrunePlan

    lengths = PrunePlan.of(cls.name, KEEP, num_layers=LAYERS).lengths(TOKENS, LAYERS)
    return lengths[-1], layer_average(lengths)


def models(json: Json = False) -> None:
    """List the models: the embedded one, the families that can be pruned, and why the others cannot."""
    from vlm_pruner.asking import EMBEDDED
    from vlm_pruner.engine.families import support_table

    quiet()
    inside = "Inside the package: small, trained from scratch, nothing to download"
    rows = [(EMBEDDED, True, inside), *((row.model_type, row.works, row.why) for row in support_table())]
    if json:
        print_json([{"name": name, "works": works, "why": why} for name, works, why in rows])
        return
    table = _table("model, or model_type of a checkpoint", "works", "where its tokens lie, or what stands in the way")
    for name, works, why in rows:
        table.add_row(name, "yes" if works else "no", why)
    console().print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    return table


def first_sentence(thing: Any) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(thing) or "").split())
    return text.split(". ")[0].rstrip(".") + "." if text else ""
