"""What the engine asks of a tower and of one call of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Forward", "Tower", "TowerCall", "unit"]

Forward = Callable[..., Any]
"""The forward of a tower."""

_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class TowerCall(ABC):
    """One call of a tower, with all of its patches: a picture is what attends to itself alone."""

    grids: list[tuple[int, int, int]]  # (t, h, w) tokens of every picture
    side: int  # patches along one side of a token
    device: torch.device

    @abstractmethod
    def features(self) -> list[Tensor]:
        """[t h w, d] embeddings of the patches of every token, side by side and without a position, by picture."""

    @abstractmethod
    def pixels(self) -> list[Tensor]:
        """[t h w, p, channels] float32 pixels under every token, by picture: from 0 to 1 where they were normalised as
        processors of the family do."""

    @abstractmethod
    def run(self, original: Forward, kept: Sequence[Tensor]) -> Any:
        """What the tower makes of the tokens `kept` (ascending, int64) of every picture, in the shape of all of them.

        Args:
            original: the tower's forward.
        """


class Tower(ABC):
    """How one kind of tower takes its patches."""

    module: Any

    @abstractmethod
    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TowerCall:
        """A call with these arguments."""


def unit(values: Tensor, half: bool) -> Tensor:
    """Normalised pixels [m, channels, ..., ...] as float32 from 0 to 1."""
    mean, deviation = (torch.tensor(x, device=values.device).view(1, -1, 1, 1) for x in (_HALF if half else _CLIP))
    return values.float() * deviation + mean
