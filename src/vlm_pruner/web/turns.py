"""A fair line in front of a model: one pruner at a time, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["StoppedError", "Ticket", "Turns"]

PATIENCE = 0.1  # seconds between two looks at the stop flag while waiting


class StoppedError(Exception):
    """The user does not want the answer any more. Never leaves what serves them."""


class Ticket:
    """A place in the line."""

    def __init__(self, turns: Turns, stop: threading.Event) -> None:
        self._turns, self._stop = turns, stop

    def wait(self) -> Iterator[int]:
        """How many are still ahead, whenever that changes; ends when it is this ticket's turn.

        Raises:
            StoppedError: the stop flag was set meanwhile.
        """
        seen = 0
        with self._turns.moved:
            ahead = self._turns.line.index(self)
        while ahead:
            if ahead != seen:
                yield ahead
            seen = ahead
            with self._turns.moved:
                self._turns.moved.wait(PATIENCE)
                ahead = self._turns.line.index(self)
            if self._stop.is_set():
                raise StoppedError
        if self._stop.is_set():
            raise StoppedError


class Turns:
    """The line. Whoever holds its first ticket may use the model."""

    def __init__(self) -> None:
        self.line: deque[Ticket] = deque()
        self.moved = threading.Condition()

    @contextmanager
    def ticket(self, stop: threading.Event) -> Iterator[Ticket]:
        """A new last place, given up at the end of the block however that comes about."""
        mine = Ticket(self, stop)
        with self.moved:
            self.line.append(mine)
        try:
            yield mine
        finally:
            with self.moved:
                self.line.remove(mine)
                self.moved.notify_all()
