"""What `vlm-pruner bench --data` asks: your own questions about your own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.pruning import Pruning

if TYPE_CHECKING:
    from vlm_pruner.evaluation.bench import Setup

__all__ = ["Data", "Longest", "Matching", "about_data", "load_data"]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Your own questions: a .jsonl file whose lines have image or video, question and answer."
    ),
]
Matching = Annotated[
    str, typer.Option("--match", help="How answers to --data are compared: exact, normalised (as VQA does) or anls.")
]
Longest = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer to --data, in tokens.")]


def load_data(
    model: str,
    opening: Opening,
    data: Path,
    limit: int | None,
    match: str,
    max_new_tokens: int,
    pruning: Pruning | None = None,
) -> Setup:
    """The model and the questions of a file; worker processes call it too."""
    from vlm_pruner.evaluation.bench import Setup
    from vlm_pruner.evaluation.matching import match_named
    from vlm_pruner.evaluation.own import ask_own, read_questions

    if pruning is not None:
        pruning.register()
    match_named(match)
    questions = read_questions(data, limit)
    loaded = opening.open(model)
    asked = ask_own(loaded.model, loaded.processor, questions, match)
    return Setup.of(loaded.model, loaded.processor, asked, max_new_tokens)


def about_data(data: Path, limit: int | None, match: str, max_new_tokens: int) -> dict[str, Any]:
    """What was asked, for the record."""
    from vlm_pruner.evaluation.own import about_own, read_questions

    return about_own(data, read_questions(data, limit), match) | {"max_new_tokens": max_new_tokens}
