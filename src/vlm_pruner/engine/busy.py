"""Who is inside the model at the moment: hooks are not taken off under a call of another thread."""

from __future__ import annotations

import threading

from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Busy"]


class Busy:
    """The threads that are inside a call of the pruned model."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: set[int] = set()
        self._closed = False

    def enter(self) -> None:
        """This thread begins a call.

        Raises:
            UnsupportedModelError: the pruner was removed at this very moment.
        """
        with self._changed:
            if self._closed:
                raise UnsupportedModelError(
                    "the pruner of this model was removed when this call had just begun: call again"
                )
            self._inside.add(threading.get_ident())

    def leave(self) -> None:
        """It has ended; harmless if it never began."""
        with self._changed:
            self._inside.discard(threading.get_ident())
            self._changed.notify_all()

    def open(self) -> None:
        """Calls may begin."""
        with self._changed:
            self._closed = False

    def close(self) -> None:
        """Wait until no other thread is inside; no call begins from then on."""
        with self._changed:
            while self._others():
                self._changed.wait(timeout=0.5)  # a thread that died inside never tells
            self._closed = True

    def _others(self) -> set[int]:
        alive = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return self._inside & {ident for ident in alive if ident is not None}
