"""`vlm-pruner doctor`: why a vLLM server here would not prune."""

from __future__ import annotations

from typing import Annotated

import typer

from vlm_pruner.cli.console import console, quiet
from vlm_pruner.errors import InputError
from vlm_pruner.json_text import read_json

__all__ = ["doctor"]


def doctor(
    *,
    model: Annotated[
        str | None, typer.Option("--model", help="A checkpoint folder or a hub id: is its architecture pruned?")
    ] = None,
    overrides: Annotated[
        str | None, typer.Option("--hf-overrides", help="What vLLM is started with: can its plan be had?")
    ] = None,
) -> None:
    """Look for what would keep a vLLM server here from pruning. Exit code 1 if there is anything."""
    from vlm_pruner.serving.vllm import KEY
    from vlm_pruner.serving.vllm.doctor import examine

    asked = None
    if overrides is not None:
        try:
            asked = read_json(overrides)[KEY]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"--hf-overrides is JSON with a key {KEY!r}: {error!r}") from error
    quiet()
    findings = list(examine(model, asked))
    for finding in findings:
        mark = "[green]ok[/]  " if finding.good else "[red]no[/]  "
        console().print(mark, end="")
        console().print(finding.text, markup=False, soft_wrap=True)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)
