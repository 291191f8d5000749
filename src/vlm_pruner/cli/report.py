"""`vlm-pruner report`: several methods and budgets on one question, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_pruner.budget import parse_keep
from vlm_pruner.cli.console import console, note, progress
from vlm_pruner.cli.files import PAGES, present, saving, writable
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Bias, Fps, Frames, Layer, Model, PerFrame, Picture, Question, Tokens, parse_list
from vlm_pruner.cli.pruning import Pruning, Wanted
from vlm_pruner.errors import PlanError

if TYPE_CHECKING:
    from vlm_pruner.asking import Loaded, Refused
    from vlm_pruner.plan import PrunePlan

__all__ = ["report"]


def report(
    image: Picture,
    question: Question,
    *,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Methods, separated by commas.", show_default="vlm-pruner,divprune")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Budgets, separated by commas.", show_default="192,64")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("report.html"),
    model: Model = "embedded",
    layer: Layer = None,
    bias: Bias = None,
    per: PerFrame = "image",
    fps: Fps = None,
    frames: Frames = None,
    pruning: Pruning,
    max_new_tokens: Tokens = 32,
    opening: Opening,
) -> None:
    """Compare methods and budgets on one question: pictures, answers, probabilities and times in one HTML file."""
    from vlm_pruner import asking

    present(image)
    opening.check()
    from vlm_pruner.asking.pages import answers_page  # with torch and transformers
    from vlm_pruner.video import Sampling

    pruning.register()
    wanted = pruning.wanted(
        None if methods is None else parse_list(methods),
        None if keep is None else [parse_keep(text) for text in parse_list(keep)],
        layer, default=(["vlm-pruner", "divprune"], [192, 64]), option="methods", per=per,
        bias=bias,
    )  # fmt: skip
    sampling = Sampling(fps, frames)
    picture = asking.open_shown(image, sampling)
    note("; ".join(f"{image}: {said}" for said in asking.notes_about(picture)))
    writable(output, PAGES)
    with progress(f"loading {model}") as say:
        loaded = opening.open(model)
        picture, fitted = loaded.reader.fitted(picture, sampling != Sampling())
        note("; ".join(f"{image}: {said}" for said in fitted))
        tries = [_plan(each, loaded) for each in wanted]
        answers = asking.compare(loaded, picture, question, tries, max_new_tokens=max_new_tokens, progress=say)
    out = console()
    for answer in answers:
        said = f"not run: {answer.reason}" if isinstance(answer, asking.Refused) else answer.text
        out.print(f"{answer.name}: {said}", markup=False, soft_wrap=True)
    full = answers[0]
    assert isinstance(full, asking.Answer)
    hint = asking.one_token([each.keep for each in wanted], full.report.total)
    note(hint)
    page = answers_page(
        loaded, picture, question, answers, name=Path(image).name, notes=[*fitted, *filter(None, [hint])]
    )
    with saving(output):
        output.write_text(page, encoding="utf-8")
    out.print(f"report: {output}", markup=False, soft_wrap=True)


def _plan(wanted: Wanted, loaded: Loaded) -> PrunePlan | Refused:
    """The plan that was asked for, or why there is none."""
    from vlm_pruner.asking import Refused

    try:
        return wanted.make(loaded)
    except PlanError as error:
        return Refused(wanted.name, error)
