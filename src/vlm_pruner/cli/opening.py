"""Options of every command that opens a model: which version of it, where, and in what form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_pruner.cli.console import note
from vlm_pruner.errors import InputError

if TYPE_CHECKING:
    from vlm_pruner.asking import Loaded

__all__ = ["Opening"]


@dataclass(frozen=True)
class Opening:
    """Fields of `asking.Loading` as options."""

    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto"
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a model on the hub.")] = (
        None
    )
    attention: Annotated[
        str | None,
        typer.Option(
            "--attn", help="sdpa, eager, flash_attention_2 or flex_attention; without it, transformers chooses."
        ),
    ] = None
    device_map: Annotated[
        str | None, typer.Option("--device-map", help="auto: spread the layers over all devices (needs accelerate).")
    ] = None
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", help="4bit or 8bit weights (needs bitsandbytes on CUDA, torchao elsewhere)."),
    ] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that the checkpoint contains. Read it first.")
    ] = False

    def check(self) -> None:
        """Raise what can be told before anything is read.

        Raises:
            InputError: an unknown value, or two options that exclude each other.
        """
        from vlm_pruner.asking import Loading

        Loading(**self.given())

    def given(self) -> dict[str, Any]:
        """Arguments of `asking.open_model` beside the name."""
        return asdict(self)

    def unused(self, why: str) -> None:
        """For a command that opens no model this time.

        Raises:
            InputError: an option was given all the same.
        """
        if self != Opening():
            raise InputError(f"options such as --device need a model, and none is opened here: {why}")

    def open(self, name: str) -> Loaded:
        """The model of that name; what transformers says meanwhile is kept quiet.

        Raises:
            InputError, UnsupportedModelError, BackendUnavailableError: as of `asking.open_model`.
        """
        from vlm_pruner.asking import open_model
        from vlm_pruner.cli.console import quiet

        quiet()
        if self.trust_remote_code:
            note(f"{name}: code that the checkpoint brings is run, as --trust-remote-code says")
        return open_model(name, **self.given())
