"""Who is being served, so that a visitor can stop their own answers and nobody else's."""

from __future__ import annotations

import threading

__all__ = ["Jobs"]


class Jobs:
    """A stop flag for every visitor with a comparison under way."""

    def __init__(self) -> None:
        self._flags: dict[str, threading.Event] = {}
        self._running: set[threading.Event] = set()  # those told to stop are still running for a while
        self._changed = threading.Condition()
        self._closed = False

    def begin(self, visitor: str) -> threading.Event:
        """The flag of a new comparison, set if the server is closing; an earlier one of the visitor is told to stop."""
        flag = threading.Event()
        with self._changed:
            earlier = self._flags.get(visitor)
            self._flags[visitor] = flag
            self._running.add(flag)
            if self._closed:
                flag.set()
        if earlier is not None:
            earlier.set()
        return flag

    def stop(self, visitor: str) -> bool:
        """Ask the visitor's comparison to stop; False if there is none."""
        with self._changed:
            flag = self._flags.get(visitor)
        if flag is None:
            return False
        flag.set()
        return True

    def close(self, patience: float) -> bool:
        """The server goes down: everything stops, nothing begins. False if some still run after `patience` seconds."""
        with self._changed:
            self._closed = True
            for flag in self._running:
                flag.set()
            return self._changed.wait_for(lambda: not self._running, patience)

    def end(self, visitor: str, flag: threading.Event) -> None:
        """The comparison with this flag is over."""
        with self._changed:
            if self._flags.get(visitor) is flag:
                del self._flags[visitor]
            self._running.discard(flag)
            self._changed.notify_all()
