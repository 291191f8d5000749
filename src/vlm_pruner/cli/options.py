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
        help="Image or video file, or folder of frames; 'demo': an image of the package; 'none': no image.",
        show_default=False,
    ),
]
Picture = Annotated[
    str,
    typer.Argument(
        help="Image or video file, or folder of frames; 'demo': an image of the package.", show_default=False
    ),
]
Question = Annotated[str, typer.Argument(help="Question about the image or video.", show_default=False)]
Model = Annotated[str, typer.Option("--model", help="'embedded', a checkpoint folder, or a hub id.")]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer", help="Prune before this decoder layer; 0: before the language model; tower: before the vision tower."
    ),
]
Bias = Annotated[
    str | None,
    typer.Option("--bias", help="log-mass: a token into which others were merged counts in attention for all of them."),
]
Quarter = Annotated[
    str | None, typer.Option("--keep", help="Tokens per image (64) or a share (0.111).", show_default="0.25")
]
Method = Annotated[
    str | None,
    typer.Option("--method", help="Pruning method; `vlm-pruner methods` lists them.", show_default="vlm-pruner"),
]
Fps = Annotated[
    float | None,
    typer.Option("--fps", help="Frames to read a second; for a folder, the rate at which its frames were taken."),
]
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        help="How many frames to read, at equal distances.",
        show_default="2 a second, 4 at least, 32 at most",
    ),
]
PerFrame = Annotated[
    str,
    typer.Option(
        "--per", help="What --keep counts for: image (an image or a whole video) or frame (each frame by itself)."
    ),
]
Tokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON and nothing else.")]


COSTS = (
    "What is made equal: nominal: --keep. layer-average: visual tokens per layer, those of vlm-pruner. flops: the "
    "language model's FLOPs in the prefill, those of vlm-pruner."
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
        raise InputError(f"expected names or numbers, separated by commas, got {text!r}")
    return parts
