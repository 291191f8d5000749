"""Options that several commands share, and how their text becomes a value."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm_pruner.budget import EQUAL
from vlm_pruner.errors import InputError

__all__ = [
    "COSTS",
    "Bias",
    "Fps",
    "Frames",
    "Image",
    "Json",
    "Layer",
    "Method",
    "Model",
    "PerFrame",
    "Quarter",
    "Question",
    "Tokens",
    "check_equal",
    "parse_list",
]

Image = Annotated[
    str,
    typer.Argument(
        help="Image or video file, or a folder of frames; 'demo' is a shipped image, 'none' asks without.",
        show_default=False,
    ),
]
Picture = Annotated[
    str,
    typer.Argument(help="Image or video file, or a folder of frames; 'demo' is a shipped image.", show_default=False),
]
Question = Annotated[str, typer.Argument(help="The question about it.", show_default=False)]
Model = Annotated[str, typer.Option("--model", help="'embedded', a checkpoint folder, or a hub id.")]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer", help="Decoder layer to prune before; 0 is before the language model, tower before the vision tower."
    ),
]
Bias = Annotated[
    str | None,
    typer.Option("--bias", help="log-mass: a survivor that is the mean of m tokens gets log m on its logits."),
]
Quarter = Annotated[
    str | None, typer.Option("--keep", help="Tokens per image (64) or a share (0.111).", show_default="0.25")
]
Method = Annotated[str | None, typer.Option("--method", help="See `vlm-pruner methods`.", show_default="vlm-pruner")]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps", help="Frames of a video that are read a second; of a folder, the rate at which they were taken."
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames", help="Frames that are read, at equal distances.", show_default="2 a second, 4 at least, 32 at most"
    ),
]
PerFrame = Annotated[str, typer.Option("--per", help="What has the budget: image (a whole video, too) or frame.")]
Tokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON and nothing else.")]


COSTS = (
    "nominal: equal counts of kept tokens. layer-average: equal cost, vlm-pruner's visual tokens per layer. flops: its "
    "FLOPs of the language model's prefill."
)
"""What `--equal` does."""


def check_equal(name: str | None) -> None:
    """Raise for what `--equal` does not know, before a model is loaded.

    Raises:
        InputError: as it says.
    """
    if name not in (None, *EQUAL):
        raise InputError(f"--equal is one of {', '.join(EQUAL)}, not {name!r}")


def parse_list(text: str) -> list[str]:
    """The parts of "a,b,c", blanks around them dropped.

    Raises:
        InputError: there are none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"expected names or numbers with commas between, got {text!r}")
    return parts
