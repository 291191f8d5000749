"""`vlm-pruner explain`: what an error means and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm_pruner.errors import HELP, explained

__all__ = ["explain"]


def explain(
    code: Annotated[
        str | None, typer.Argument(metavar="CODE", help="The name in square brackets at the end of an error.")
    ] = None,
) -> None:
    """Explain an error: what it means and what to do. Without CODE, list all errors."""
    if code is None:
        for known in HELP:
            typer.echo(f"{known:<12} {explained(known).splitlines()[0].removeprefix('# ')}")
        return
    typer.echo(explained(code).rstrip())
