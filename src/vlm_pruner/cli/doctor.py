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
        str | None,
        typer.Option("--model", help="Checkpoint folder or hub id: say whether vLLM can prune its architecture."),
    ] = None,
    overrides: Annotated[
        str | None,
        typer.Option(
            "--hf-overrides", help="The value that vLLM is started with: say whether vLLM can carry out the plan in it."
        ),
    ] = None,
) -> None:
    """Find out why a vLLM server on this machine would not prune. Exit code 1 if there is a reason."""
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
