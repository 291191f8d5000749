"""Where output goes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vlm_pruner.errors import InputError

__all__ = ["PICTURES", "PLOTS", "complain", "console", "print_json", "progress", "quiet", "writable"]


def console() -> Console:
    """The console of results; made anew so that it writes to today's stdout."""
    return Console(highlight=False)


def complain(message: str) -> None:
    """One line on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(f"error: {' '.join(message.split())}")


def print_json(data: Any) -> None:
    """`data` on stdout and nothing else."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def progress(doing: str) -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr, if a person is watching; yields the function that sets its text and the share done."""
    screen = Console(stderr=True, highlight=False, markup=False)
    if not screen.is_terminal:
        yield lambda *_: None
        return
    columns = (SpinnerColumn(), BarColumn(24), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(doing, total=None)

        def say(text: str, share: float) -> None:
            bar.update(task, description=text, total=1.0, completed=share, refresh=True)

        yield say


def quiet() -> None:
    """Let the status line speak alone: no weight-loading bars, no warnings that a user can do nothing about."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff", ".pdf")
"""Endings of the pictures that Pillow writes."""

PLOTS = (".png", ".svg", ".pdf")
"""Endings of the plots that matplotlib writes."""


def writable(path: Path, endings: Sequence[str] = ()) -> Path:
    """`path`, its folder made; asked before the work, so that nothing is lost after it.

    Raises:
        InputError: it is a folder, its folder cannot be made, or it has none of the `endings` (if there are any).
    """
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name a file in it")
    if endings and path.suffix.lower() not in endings:
        raise InputError(f"cannot tell from {str(path)!r} what to write: end it with {', '.join(endings)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from error
    return path
