"""Where output goes: results to stdout, everything else to stderr. Whatever a terminal cannot show is escaped."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["complain", "console", "note", "print_json", "print_rows", "progress", "quiet"]

Say = Callable[[str, float], None]
EVERY = 10.0  # seconds between two lines of progress where no terminal shows a bar
MINUTE = 60.0  # of work, before it is said how long the rest will take


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


def print_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout: folded to the width of a terminal, one row a line for whatever else reads it.

    Args:
        head: names of the columns; a line break in one is a blank where nobody folds.
    """
    every, screen = [tuple(map(str, row)) for row in rows], console()
    if screen.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for number, name in enumerate(head):
            table.add_column(name, no_wrap=number == 0, overflow="fold")
        for row in every:
            table.add_row(*map(escape, row))
        screen.print(table)
        return
    lines = [tuple(name.replace("\n", " ") for name in head), *every]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for row in lines:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        screen.print(line.rstrip(), markup=False, soft_wrap=True)


@contextmanager
def progress(doing: str) -> Iterator[Say]:
    """Progress on stderr; yields the function that sets its text and the share done.

    A person who is watching sees a bar; where nobody is, there is a line every ten seconds. After a minute both say how
    long the rest will take.
    """
    pace = _Pace()
    screen = _stderr()
    if not screen.is_terminal:
        with _lines(doing, pace) as say:
            yield say
        return
    spinner = SpinnerColumn("line" if screen.options.ascii_only else "dots")
    columns = (spinner, BarColumn(24), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(doing, total=None)

        def say(text: str, share: float) -> None:
            bar.update(task, description=text + pace.left(share), total=1.0, completed=share, refresh=True)

        yield say


def quiet() -> None:
    """Let the status line speak alone: no weight-loading bars, no warnings that a user can do nothing about."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


class _Pace:
    """How long the rest will take, from how long the share took that was done since work began."""

    def __init__(self) -> None:
        self._began, self._from, self._last = time.monotonic(), 0.0, 2.0

    def left(self, share: float) -> str:
        """ ", about 5 min left" with `share` done; nothing in the first minute. A lower share is other work."""
        now = time.monotonic()
        if share < self._last:
            self._began, self._from = now, share
        self._last = share
        if now - self._began < MINUTE or not self._from < share < 1.0:
            return ""
        seconds = (now - self._began) * (1 - share) / (share - self._from)
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


@contextmanager
def _lines(doing: str, pace: _Pace) -> Iterator[Say]:
    """What was said last, every `EVERY` seconds: also while one step takes long."""
    said: list[tuple[str, float | None, str]] = [(doing, None, "")]
    over, started = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(EVERY):
            text, share, left = said[-1]
            done = "" if share is None else f", {share:.0%} done{left}"
            _tell(f"{text}{done}, {time.monotonic() - started:.0f} s")

    teller = threading.Thread(target=tell, name="vlm-pruner-progress", daemon=True)
    teller.start()
    try:
        yield lambda text, share: said.__setitem__(0, (text, share, pace.left(share)))
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
