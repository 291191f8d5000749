"""Where output goes: results to stdout, everything else to stderr. Whatever a terminal cannot show is escaped."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["complain", "console", "note", "print_json", "progress", "quiet"]

Say = Callable[[str, float], None]
EVERY = 10.0  # seconds between two lines of progress where no terminal shows a bar


def console() -> Console:
    """The console of results; made anew so that it writes to today's stdout."""
    return Console(highlight=False, file=_lenient(sys.stdout))


def complain(message: str) -> None:
    """One line on stderr."""
    _tell(f"error: {' '.join(message.split())}")


def note(message: str) -> None:
    """One line on stderr that is no error; nothing where there is no message."""
    if message:
        _tell(message)


def print_json(data: Any) -> None:
    """`data` on stdout and nothing else."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, indent=2)
    sys.stdout.write(text + "\n")


@contextmanager
def progress(doing: str) -> Iterator[Say]:
    """Progress on stderr; yields the function that sets its text and the share done.

    A person who is watching sees a bar; where nobody is, there is a line every ten seconds.
    """
    screen = _stderr()
    if not screen.is_terminal:
        with _lines(doing) as say:
            yield say
        return
    spinner = SpinnerColumn("line" if screen.options.ascii_only else "dots")
    columns = (spinner, BarColumn(24), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
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


@contextmanager
def _lines(doing: str) -> Iterator[Say]:
    """What was said last, every `EVERY` seconds: also while one step takes long."""
    said: list[tuple[str, float | None]] = [(doing, None)]
    over, started = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(EVERY):
            text, share = said[-1]
            done = "" if share is None else f", {share:.0%} done"
            _tell(f"{text}{done}, {time.monotonic() - started:.0f} s")

    teller = threading.Thread(target=tell, name="vlm-pruner-progress", daemon=True)
    teller.start()
    try:
        yield lambda text, share: said.__setitem__(0, (text, share))
    finally:
        over.set()
        teller.join()


def _tell(message: str) -> None:
    _stderr().print(message)


def _stderr() -> Console:
    return Console(highlight=False, soft_wrap=True, markup=False, file=_lenient(sys.stderr))


def _lenient(stream: TextIO) -> TextIO:
    """The stream, which from now on escapes what its encoding does not have."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream
