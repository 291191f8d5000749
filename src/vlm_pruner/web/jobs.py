"""Who is being served, so that a visitor can stop their own answers and nobody else's."""

from __future__ import annotations

import threading

__all__ = ["Jobs"]


class Jobs:
    """A stop flag for every visitor with a comparison under way."""

    def __init__(self) -> None:
        self._flags: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: str) -> threading.Event:
        """The flag of a new comparison; an earlier one of the same visitor is told to stop."""
        flag = threading.Event()
        with self._lock:
            earlier = self._flags.get(visitor)
            self._flags[visitor] = flag
        if earlier is not None:
            earlier.set()
        return flag

    def stop(self, visitor: str) -> bool:
        """Ask the visitor's comparison to stop; False if there is none."""
        with self._lock:
            flag = self._flags.get(visitor)
        if flag is None:
            return False
        flag.set()
        return True

    def stop_all(self) -> None:
        """The server goes down."""
        with self._lock:
            flags = list(self._flags.values())
        for flag in flags:
            flag.set()

    def end(self, visitor: str, flag: threading.Event) -> None:
        """The comparison with this flag is over."""
        with self._lock:
            if self._flags.get(visitor) is flag:
                del self._flags[visitor]
