"""PixelPrune: tokens whose pixels are not what their neighbours predict.

It acts on pixels before the vision tower and keeps its own number of tokens. The functions are here; there is no place
in a plan yet where a method could ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vlm_pruner.errors import PlanError, unknown_name
from vlm_pruner.ops.sync import constant

__all__ = ["pixelprune"]

_METRICS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda apart: apart.abs().amax(-1),
    "mae": lambda apart: apart.abs().mean(-1),
    "rmse": lambda apart: apart.square().mean(-1).sqrt(),
}


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
    if metric not in _METRICS:
        raise PlanError(unknown_name("metric", metric, _METRICS))
    if scan not in ("pred_2d", "raster", "serpentine"):
        raise PlanError(unknown_name("scan", scan, ("pred_2d", "raster", "serpentine")))
    most = constant((threshold,), torch.float32, pixels.device).double()

    def alike(x: Tensor, y: Tensor) -> Tensor:
        # The difference of two float32 values rounds alike everywhere; float64 keeps sums of them from rounding.
        return _METRICS[metric]((x - y).double()) <= most

    if scan != "pred_2d":
        return _walk(pixels, scan == "serpentine", alike)
    if anchored is None:
        anchored = threshold > 0
    return _predicted(pixels, anchored, alike)


def _predicted(pixels: Tensor, anchored: bool, alike: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[h * w] bool: unlike the prediction, one diagonal after the other: its neighbours lie on those before."""
    h, w, size = pixels.shape
    known = pixels.reshape(h * w, size).clone()  # what a token is rebuilt to, where that is the original too
    kept = torch.ones(h * w, dtype=torch.bool, device=pixels.device)
    for place, row, column in _diagonals(h, w, pixels.device):
        left = known.index_select(0, torch.where(column > 0, place - 1, place - w))  # in column 0 the one above
        above = known.index_select(0, torch.where(row > 0, place - w, place - 1))  # in row 0 the one on the left
        corner = known.index_select(0, (place - w - 1).clamp_min(0))
        inner = (row > 0) & (column > 0)
        upwards = inner & alike(corner, left) & ~alike(corner, above)
        prediction = torch.where(upwards[:, None], above, left)
        own = known.index_select(0, place)
        unlike = ~alike(own, prediction)
        kept = kept.index_copy(0, place, unlike)
        if anchored:
            known = known.index_copy(0, place, torch.where(unlike[:, None], own, prediction))
    return kept


def _diagonals(h: int, w: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Places, rows and columns along each diagonal from the second on."""
    for number in range(1, h + w - 1):
        row = torch.arange(max(0, number - w + 1), min(h, number + 1), device=device)
        column = number - row
        yield row * w + column, row, column


def _walk(pixels: Tensor, serpentine: bool, alike: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[h * w] bool: unlike the last kept token on the way."""
    h, w, _ = pixels.shape
    path = torch.arange(h * w, device=pixels.device).view(h, w)
    if serpentine:
        odd = torch.arange(h, device=pixels.device)[:, None] % 2 == 1
        path = torch.where(odd, path.flip(1), path)
    line = pixels.flatten(0, 1).index_select(0, path.flatten())
    last, kept = line[0], [torch.ones((), dtype=torch.bool, device=pixels.device)]
    for token in line[1:].unbind():
        kept.append(~alike(token, last).squeeze(0))
        last = torch.where(kept[-1], token, last)
    return torch.empty_like(path.flatten(), dtype=torch.bool).index_copy(0, path.flatten(), torch.stack(kept))
