"""`vlm-pruner ask`: one question, both answers, what it saved, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from vlm_pruner.cli.console import console, note, print_json, progress
from vlm_pruner.cli.files import PICTURES, present, saving, writable
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Bias, Fps, Frames, Image, Json, Layer, Method, Model, PerFrame, Question, Tokens
from vlm_pruner.cli.pruning import Pruning, Wanted

if TYPE_CHECKING:
    from vlm_pruner.asking import Answer, Loaded, Shown
    from vlm_pruner.evaluation.by_density import DensityPlans

__all__ = ["ask"]


def ask(
    image: Image,
    question: Question,
    *,
    model: Model = "embedded",
    method: Method = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="Tokens per image (64), a share (0.111), or auto: --plan has a plan for each kind of picture.",
            show_default="64",
        ),
    ] = None,
    layer: Layer = None,
    bias: Bias = None,
    per: PerFrame = "image",
    fps: Fps = None,
    frames: Frames = None,
    pruning: Pruning,
    overlay: Annotated[
        Path | None,
        typer.Option(
            "--overlay", help="File for a picture of the kept tokens; .gif and .webp show a video as an animation."
        ),
    ] = None,
    json: Json = False,
    max_new_tokens: Tokens = 32,
    opening: Opening,
) -> None:
    """Ask a model about an image or a video, with all visual tokens and with few of them."""
    from vlm_pruner import asking

    present(None if image == "none" else image)
    opening.check()
    from vlm_pruner.cli.show import as_json  # with torch and transformers
    from vlm_pruner.video import Sampling

    pruning.register()
    auto = pruning.by_density(keep, method=method, layer=layer, per=None if per == "image" else per, bias=bias)
    wanted = None if auto is not None else pruning.single(method, keep, layer, 64, per, bias)
    sampling = Sampling(fps, frames)
    picture = None if image == "none" else asking.open_shown(image, sampling)
    if picture is not None:
        note("; ".join(f"{image}: {said}" for said in asking.notes_about(picture)))
    if overlay is not None:
        writable(overlay, PICTURES, read=image)
    with progress(f"loading {model}") as say:
        loaded = opening.open(model)
        if picture is not None:
            picture, fitted = loaded.reader.fitted(picture, sampling != Sampling())
            note("; ".join(f"{image}: {said}" for said in fitted))
        if auto is not None:
            wanted = _of_its_group(auto, picture)
        assert wanted is not None
        plan = wanted.make(loaded)
        answers = asking.ask(loaded, picture, question, [plan], max_new_tokens=max_new_tokens, progress=say)
        say("drawing", 1.0)
        drawn, problem = _try_to_draw(loaded, picture, question, answers[1], overlay)
    note(asking.one_token([wanted.keep], answers[1].report.total))
    if json:
        print_json(as_json(loaded, image, question, answers, drawn))
    else:
        _print(question, answers)
        if overlay is not None and problem is None:
            console().print(f"overlay: {drawn or 'not drawn, nothing was pruned'}", markup=False, soft_wrap=True)
    if problem is not None:  # the answers are told all the same
        raise problem


def _of_its_group(plans: DensityPlans, picture: Shown | None) -> Wanted:
    """The pruning of the group that a picture, or the densest frame of a video, belongs to."""
    from vlm_pruner.video import Clip

    pictures = picture.pictures() if isinstance(picture, Clip) else [] if picture is None else [picture]
    group, plan = plans.group(pictures), plans.plan(pictures)
    note(f"--keep auto: a {group} picture; {plans.told.get(group, '')}")
    return Wanted(group, plan.nominal, lambda loaded: loaded.plan(plan))


def _print(question: str, answers: Sequence[Answer]) -> None:
    from vlm_pruner.asking.wording import timed
    from vlm_pruner.cli.show import answers_table

    out = console()
    out.print(f"[bold]question[/]    {escape(question)}")
    out.print(f"[bold]all tokens[/]  {escape(answers[0].text)}")
    out.print(f"[bold]pruned[/]      {escape(answers[1].text)}\n")
    out.print(answers_table(answers))
    out.print()
    for remark in answers[1].report.remarks:
        out.print(remark, markup=False, soft_wrap=True)
    out.print(f"{timed(answers[0].times.runs)}.", style="dim")


def _try_to_draw(
    loaded: Loaded, picture: Shown | None, question: str, answer: Answer, path: Path | None
) -> tuple[Path | None, Exception | None]:
    """The path of the overlay if one was written, and what went wrong."""
    try:
        return _draw(loaded, picture, question, answer, path), None
    except Exception as error:  # whatever it is, answers were given, and shall not be lost with the picture
        return None, error


def _draw(loaded: Loaded, picture: Shown | None, question: str, answer: Answer, path: Path | None) -> Path | None:
    """Write the overlay where there is something to see; the path if it was written."""
    from vlm_pruner.asking.pictures import save_overlay

    if path is None or picture is None or answer.images[0].selection is None:
        return None
    with saving(path):
        save_overlay(path, loaded, picture, question, answer)
    return path
