"""`vlm-pruner report`: several methods and budgets on one question, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_pruner.budget import Keep
from vlm_pruner.cli.console import console, note, progress, quiet
from vlm_pruner.cli.files import PAGES, saving, writable
from vlm_pruner.cli.options import Device, Dtype, Layer, Model, Picture, Question, Tokens, parse_keep, parse_list
from vlm_pruner.errors import PlanError

if TYPE_CHECKING:
    from vlm_pruner.asking import Refused
    from vlm_pruner.plan import PrunePlan

__all__ = ["report"]


def report(
    image: Picture,
    question: Question,
    methods: Annotated[str, typer.Option("--methods", help="Names, with commas between.")] = "vlm-pruner,divprune",
    keep: Annotated[str, typer.Option("--keep", help="Budgets, with commas between.")] = "192,64",
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = Path("report.html"),
    model: Model = "embedded",
    layer: Layer = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    max_new_tokens: Tokens = 32,
) -> None:
    """Compare methods and budgets on one question: pictures, answers, probabilities and times in one HTML file."""
    from vlm_pruner import asking
    from vlm_pruner.asking.pages import answers_page
    from vlm_pruner.methods import method_class

    names, budgets = parse_list(methods), [parse_keep(text) for text in parse_list(keep)]
    for name in names:
        method_class(name)
    picture = asking.open_image(image)
    note("; ".join(f"{image}: {said}" for said in asking.notes_of(picture)))
    writable(output, PAGES)
    with progress(f"loading {model}") as say:
        quiet()
        loaded = asking.open_model(model, device=device, dtype=dtype)
        tries = [_plan(n, k, layer, loaded.layers) for n in names for k in budgets]
        answers = asking.compare(loaded, picture, question, tries, max_new_tokens=max_new_tokens, progress=say)
    out = console()
    for answer in answers:
        said = f"not run: {answer.reason}" if isinstance(answer, asking.Refused) else answer.text
        out.print(f"{answer.name}: {said}", markup=False, soft_wrap=True)
    full = answers[0]
    assert isinstance(full, asking.Answer)
    hint = asking.one_token(budgets, full.report.total)
    note(hint)
    page = answers_page(loaded, picture, question, answers, name=Path(image).name, notes=[hint] if hint else [])
    with saving(output):
        output.write_text(page, encoding="utf-8")
    out.print(f"report: {output}", markup=False, soft_wrap=True)


def _plan(method: str, keep: Keep, layer: int | None, layers: int) -> PrunePlan | Refused:
    """The plan that was asked for, or why there is none."""
    from vlm_pruner.asking import Refused
    from vlm_pruner.plan import PrunePlan

    try:
        return PrunePlan.of(method, keep, layer, num_layers=layers)
    except PlanError as error:
        return Refused(f"{method} {keep}", error)
