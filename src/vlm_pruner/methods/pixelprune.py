"""PixelPrune: tokens whose pixels are not what their neighbours predict.

It acts on pixels before the vision tower and keeps its own number of tokens, for which `keep` is a ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Budget
from vlm_pruner.errors import InputError, PlanError, unknown_name
from vlm_pruner.methods.base import PruningMethod, require
from vlm_pruner.ops.basic import ranking
from vlm_pruner.ops.sync import constant, declared_sync
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["PixelPrune", "pixelprune"]

_SCANS = ("pred_2d", "raster", "serpentine")

_METRICS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda apart: apart.abs().amax(-1),
    "mae": lambda apart: apart.abs().mean(-1),
    "rmse": lambda apart: apart.square().mean(-1).sqrt(),
}


@final
@dataclass(frozen=True)
class PixelPrune(PruningMethod):
    """Drops tokens whose pixels can be predicted from their neighbours, before the vision tower. With a threshold of
    0, it drops only tokens whose pixels equal those of a neighbour.

    `keep` is a ceiling: as many tokens stay as differ from their prediction, of more than `keep` those that differ
    most. Frames of a video and tiles are judged one by one; the first token of each stays.

    Args:
        threshold: the most by which pixels that resemble each other differ, from 0 to 1. Take (k + 0.5) / 255, which no
            rounding decides.
        metric: the largest difference (`max`), the mean one (`mae`) or the root of the mean square (`rmse`).
        scan: what a token is predicted from: `pred_2d`, its neighbours on the left and above; `raster` and
            `serpentine`, the last kept one on the way.
        anchored: predict from what is left of the neighbours; None is where that differs, above a threshold of 0.

    Deviates from the released code: a ceiling; the first token of every frame and tile.
    Cost: O(n pixels), one diagonal after the other.

    Raises:
        PlanError: a parameter outside its range.
        InputError: pixels outside 0 to 1, under a threshold above 0: they were normalised in another way than
            processors of the family do.
    """

    name: ClassVar[str] = "pixelprune"
    title: ClassVar[str] = "PixelPrune"
    source: ClassVar[str] = "arXiv:2604.00886"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.PIXELS})
    default_layer: ClassVar[int | str | None] = "tower"

    threshold: float = 0.0
    metric: str = "max"
    scan: str = "pred_2d"
    anchored: bool | None = None

    def __post_init__(self) -> None:
        _check_names(self.metric, self.scan)
        if not 0 <= self.threshold < 1:
            raise PlanError(f"threshold={self.threshold} must lie in [0, 1)")

    @property
    def budget(self) -> Budget:
        return "ceiling"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        require(self, tokens, Signal.PIXELS)
        assert tokens.pixels is not None
        pixels = tokens.pixels.flatten(1).float()
        t, h, w = tokens.grid if tokens.grid is not None else (1, 1, len(tokens))
        if self.threshold > 0:
            _check_range(pixels)
        frames = pixels.view(t, h, w, -1)
        apart = [_apart(frame, self.threshold, self.metric, self.scan, self.anchored) for frame in frames]
        unlike = torch.cat(apart)
        with declared_sync():  # how many stay is seen in the pixels alone
            kept = (unlike > _most(self.threshold, pixels)).nonzero().flatten()
        if len(kept) > keep:
            kept = kept[ranking(unlike[kept])[:keep]].sort().values
        return Selection(kept)


def _check_names(metric: str, scan: str) -> None:
    if metric not in _METRICS:
        raise PlanError(unknown_name("metric", metric, _METRICS))
    if scan not in _SCANS:
        raise PlanError(unknown_name("scan", scan, _SCANS))


def _check_range(pixels: Tensor) -> None:
    with declared_sync():
        low, high = (float(bound) for bound in pixels.aminmax())
    if low < -0.01 or high > 1.01:
        raise InputError(
            f"pixelprune: pixels reach from {low:.3g} to {high:.3g} instead of 0 to 1: they were not normalised as "
            "processors of this family do, so that a threshold has no meaning; threshold=0 needs none"
        )


def pixelprune(
    pixels: Tensor, threshold: float = 0.0, metric: str = "max", scan: str = "pred_2d", anchored: bool | None = None
) -> Tensor:
    """[h * w] bool, true where a token is kept, in raster order; the first always is.

    `pred_2d` predicts a token from its neighbours: from the one above, if the one on the left resembles what lies
    between them and the one above does not, else from the one on the left. `raster` and `serpentine` (odd rows from
    right to left) predict it to be the last kept one. What resembles its prediction is dropped. arXiv:2604.00886;
    OPPO-Mente-Lab/PixelPrune.

    Args:
        pixels: [h, w, p] float32 in [0, 1], all values of the pixels under each token.
        threshold: the most by which pixels that resemble each other differ. Take (k + 0.5) / 255, which no rounding
            decides, rather than k / 255.
        metric: the largest difference (`max`), the mean one (`mae`) or the root of the mean square (`rmse`).
        anchored: predict from what is left of the neighbours, so that errors do not add up; None is where that differs,
            above a threshold of 0.

    Raises:
        PlanError: an unknown scan or metric.
    """
    return _apart(pixels, threshold, metric, scan, anchored) > _most(threshold, pixels)


def _most(threshold: float, pixels: Tensor) -> Tensor:
    """[1] float64 threshold as it is rounded to float32."""
    return constant((threshold,), torch.float32, pixels.device).double()


def _apart(pixels: Tensor, threshold: float, metric: str, scan: str, anchored: bool | None) -> Tensor:
    """[h * w] float64 difference of every token from its prediction, infinite for the first one. Arguments and errors
    as of `pixelprune`."""
    _check_names(metric, scan)

    def apart(x: Tensor, y: Tensor) -> Tensor:
        # The difference of two float32 values rounds alike everywhere; float64 keeps sums of them from rounding.
        return _METRICS[metric]((x - y).double())

    most = _most(threshold, pixels)
    if scan != "pred_2d":
        return _walk(pixels, scan == "serpentine", apart, most)
    return _predicted(pixels, threshold > 0 if anchored is None else anchored, apart, most)


def _predicted(pixels: Tensor, anchored: bool, apart: Callable[[Tensor, Tensor], Tensor], most: Tensor) -> Tensor:
    """[h * w] difference from the prediction, one diagonal after the other: its neighbours lie on those before."""
    h, w, size = pixels.shape
    known = pixels.reshape(h * w, size).clone()  # what a token is rebuilt to, where that is the original too
    found = torch.full((h * w,), torch.inf, dtype=torch.float64, device=pixels.device)
    for place, row, column in _diagonals(h, w, pixels.device):
        left = known.index_select(0, torch.where(column > 0, place - 1, place - w))  # in column 0 the one above
        above = known.index_select(0, torch.where(row > 0, place - w, place - 1))  # in row 0 the one on the left
        corner = known.index_select(0, (place - w - 1).clamp_min(0))
        inner = (row > 0) & (column > 0)
        upwards = inner & (apart(corner, left) <= most) & (apart(corner, above) > most)
        prediction = torch.where(upwards[:, None], above, left)
        own = known.index_select(0, place)
        difference = apart(own, prediction)
        found = found.index_copy(0, place, difference)
        if anchored:
            known = known.index_copy(0, place, torch.where((difference > most)[:, None], own, prediction))
    return found


def _diagonals(h: int, w: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Places, rows and columns along each diagonal from the second on."""
    for number in range(1, h + w - 1):
        row = torch.arange(max(0, number - w + 1), min(h, number + 1), device=device)
        column = number - row
        yield row * w + column, row, column


def _walk(pixels: Tensor, serpentine: bool, apart: Callable[[Tensor, Tensor], Tensor], most: Tensor) -> Tensor:
    """[h * w] difference from the last kept token on the way."""
    h, w, _ = pixels.shape
    path = torch.arange(h * w, device=pixels.device).view(h, w)
    if serpentine:
        odd = torch.arange(h, device=pixels.device)[:, None] % 2 == 1
        path = torch.where(odd, path.flip(1), path)
    line = pixels.flatten(0, 1).index_select(0, path.flatten())
    last, found = line[0], [torch.full((), torch.inf, dtype=torch.float64, device=pixels.device)]
    for token in line[1:].unbind():
        found.append(apart(token, last))
        last = torch.where(found[-1] > most, token, last)
    return torch.empty_like(path.flatten(), dtype=torch.float64).index_copy(0, path.flatten(), torch.stack(found))
