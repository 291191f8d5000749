"""`vlm-pruner explain`: what an error means and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm_pruner.errors import HELP, explained

__all__ = ["explain"]


def explain(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="As an error names it.")] = None,
) -> None:
    """Say what an error means and what to do about it: its page in the docs, without a network."""
    if code is None:
        for known in HELP:
            typer.echo(f"{known:<12} {explained(known).splitlines()[0].removeprefix('# ')}")
        return
    typer.echo(explained(code).rstrip())
