"""What `profile` returns: the figures, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlm_pruner.profiling import show
from vlm_pruner.profiling.figures import Figures

__all__ = ["ProfileResult"]


@dataclass(frozen=True)
class ProfileResult(Figures):
    """The figures of one prompt, unpruned and pruned, which are described there, with a table and a plot of them."""

    def table(self) -> str:
        """The profile as a plain-text table."""
        return show.table(self)

    def plot(self, path: str | Path) -> None:
        """Bars of the time to first token, split into its parts, as an image file (needs the extra `viz`).

        Raises:
            BackendUnavailableError: matplotlib is not installed.
        """
        show.plot(self, path)
