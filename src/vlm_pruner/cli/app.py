"""The frame of every command: options to types, errors to one line on stderr and exit code 2."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer

from vlm_pruner import __version__
from vlm_pruner.cli.console import complain
from vlm_pruner.cli.groups import spread
from vlm_pruner.errors import VlmPrunerError, missing_package, not_compiled

__all__ = ["build", "main"]

Command = Callable[..., Any]


def build(commands: Iterable[Command]) -> typer.Typer:
    """The application that has these commands."""
    app = typer.Typer(
        name="vlm-pruner",
        help="Prune the image tokens of vision-language models: ask questions, see what is kept, measure the cost.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    for command in commands:
        app.command(command.__name__)(_guarded(spread(command)))
    return app


def _common(
    version: bool = typer.Option(
        False, "--version", callback=lambda on: _version(on), is_eager=True, help="Print the version."
    ),
) -> None:
    """Prune the image tokens of vision-language models: ask questions, see what is kept, measure the cost."""


def _version(on: bool) -> None:
    if on:
        typer.echo(__version__)
        raise typer.Exit


def _guarded(command: Command) -> Command:
    """The command, with the library's own errors and Ctrl-C told in one line."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except VlmPrunerError as error:
            complain(str(error), error.help_command)
            raise typer.Exit(2) from None
        except (ImportError, RuntimeError) as error:
            known = missing_package("this command", error) if isinstance(error, ImportError) else not_compiled(error)
            if known is None:
                raise
            complain(str(known), known.help_command)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            complain("stopped")
            raise typer.Exit(130) from None

    return run


def main() -> None:
    """Entry point of `vlm-pruner`."""
    from vlm_pruner.cli import app

    sys.exit(app())
