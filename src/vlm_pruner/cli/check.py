"""`vlm-pruner check`: the promises of the engine, proved on a model of yours, on your machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from vlm_pruner.cli.console import console, note, print_json, progress
from vlm_pruner.cli.files import present
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Bias, Json, Layer, Method
from vlm_pruner.cli.pruning import Pruning

if TYPE_CHECKING:
    from vlm_pruner.asking import Loaded
    from vlm_pruner.verify import Check, Verification

__all__ = ["check"]

QUESTIONS = ("What is in the image?", "What is in the image, and where in it does it stand?")


def check(
    model: Annotated[str, typer.Argument(help="'embedded', a checkpoint folder, or a hub id.")] = "embedded",
    image: Annotated[str, typer.Argument(help="Image file; 'demo' is one of the package.")] = "demo",
    *,
    method: Method = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Tokens per image (64) or a share (0.25).", show_default="0.25")
    ] = None,
    layer: Layer = None,
    bias: Bias = None,
    pruning: Pruning,
    new_tokens: Annotated[int, typer.Option("--new-tokens", min=1, help="How many tokens each run generates.")] = 8,
    json: Json = False,
    opening: Opening,
) -> None:
    """Test on this model and machine that pruning keeps its promises. Exit code 0 if it does, 1 if not."""
    from vlm_pruner import asking

    present(image)
    opening.check()
    from vlm_pruner.report import provenance  # with torch and transformers
    from vlm_pruner.verify import verify

    pruning.register()
    wanted = pruning.single(method, keep, layer, 0.25, bias=bias)
    picture = asking.open_image(image)
    note("; ".join(f"{image}: {said}" for said in asking.notes_of(picture)))
    with progress(f"loading {model}") as say:
        loaded = opening.open(model)
        plan = wanted.make(loaded)
        one, other = (loaded.inputs(question, picture, new_tokens) for question in QUESTIONS)
        found = verify(loaded.model, one, other, method=plan, keep=None, new_tokens=new_tokens, progress=say)
    if json:
        print_json({"date": provenance()["date"], **_named(loaded, opening, image), **found.to_dict()})
    else:
        _print(found, loaded)
    if not found.kept:
        raise typer.Exit(1)


def _named(loaded: Loaded, opening: Opening, image: str) -> dict[str, Any]:
    """What was checked, without the folders of this machine."""
    name = Path(loaded.name).name if Path(loaded.name).exists() else loaded.name
    return {"model": name, "revision": opening.revision, "quantize": opening.quantize, "image": Path(image).name}


def _print(found: Verification, loaded: Loaded) -> None:
    from vlm_pruner.plan import TOWER

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("promise", overflow="fold")
    for head in ("largest\ndifference", "allowed", "kept"):
        table.add_column(head, justify="right")
    for each in found.checks:
        table.add_row(each.promise, _number(each.largest), _number(each.allowed), _said(each))
    out = console()
    out.print(table)
    notes = [f"{each.promise}: {each.note}" for each in found.checks if each.note]
    about = found.to_dict()
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    sites = ", ".join(str(place) for place in found.places if place != TOWER)
    where = " and ".join(
        ["the vision tower"] * (TOWER in found.places) + [f"layer {sites} of {found.layers}"] * bool(sites)
    )
    for line in (
        *notes, "",
        f"model       {loaded.name}: {found.family}, {found.layers} decoder layers",
        f"pruning     {found.method}, keep {found.keep}, before {where}; {found.new_tokens} tokens generated",
        f"runs with   {found.attention} attention, {found.dtype} on {found.device}, {about['machine']}",
        f"versions    {versions}",
        "",
        "every promise that can be checked on this model is kept" if found.kept else "a promise is broken",
    ):  # fmt: skip
        out.print(line, markup=False, soft_wrap=True)
    out.print(
        "The table shows the largest differences of logits, over the prefill and every decode step. The allowed "
        "difference is what rounding does to the unpruned model here, times a margin.",
        style="dim",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _said(one: Check) -> str:
    return {None: "not run", True: "yes", False: "NO"}[one.kept]
