"""CLSE: attention to the tokens whose fine detail the first layer of the language model changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from vlm_pruner.budget import Keep
from vlm_pruner.methods._float64 import mean_of_heads
from vlm_pruner.methods._signals import read
from vlm_pruner.methods._stages import counts, layers
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import top
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["Clse", "detail", "evolution"]

_LAYERS = (1, 11, 21)
_COUNTS = {64: (110, 70, 20), 128: (220, 140, 41), 192: (330, 210, 62)}


def detail(rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[t, h * w] float64 mean magnitude over the channels of what a low pass takes out of `rows` [t * h * w, d].

    The low pass is a Gaussian over the frequencies of each frame, of a tenth of the shorter half side. It is a product
    of one over the rows and one over the columns, so that two small matrices do the work of a Fourier transform.
    """
    t, h, w = grid
    sigma = 0.1 * min(h // 2, w // 2)
    maps = rows.double().view(t, h, w, -1)
    smooth = torch.einsum("ai,tiwd->tawd", _low_pass(h, sigma, rows.device), maps)
    smooth = torch.einsum("bj,tajd->tabd", _low_pass(w, sigma, rows.device), smooth)
    return (maps - smooth).abs().mean(-1).view(t, h * w)


def _low_pass(side: int, sigma: float, device: torch.device) -> Tensor:
    """[side, side] float64 circulant matrix of a Gaussian over the frequencies of a circle of `side` places."""
    place = torch.arange(side, device=device, dtype=torch.float64)
    frequency = place - side // 2
    weight = (-frequency.square() / (2 * sigma**2)).exp()
    turns = (2 * math.pi / side) * (place[:, None] - place[None])
    return ((frequency[:, None, None] * turns).cos() * weight[:, None, None]).sum(0) / side


def evolution(first: Tensor, second: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[n] float64 in (0, 1): how much the detail of a token changed from `first` to `second` [n, d], within its frame.

    Frames must be at least 2 x 2: below that there is no detail to tell from the rest.
    """
    before, after = detail(first, grid), detail(second, grid)
    change = ((after - before).abs() / (before.mean(1, keepdim=True) + before + 1e-6)).clamp_max(1)
    spread = change.std(1, keepdim=True) + 1e-6
    return ((change - change.mean(1, keepdim=True)) / spread / 0.1).sigmoid().flatten()


@final
@dataclass(frozen=True)
class Clse(PruningMethod):
    """Keeps what the last prompt token attends to, in three steps, the first only where fine detail changed.

    `keep` by name is the paper's nominal budget: 192, 128 and 64 of 576 give its counts before layers 1, 11 and 21 of
    32 (64: 110, 70 and 20), others lie between them.

    Source: "CLSE", arXiv:2606.24165, ECCV 2026; zjubinchen/CLSE.
    Deviates: attention alone where the tokens are no whole grid of at least 2 x 2 (tiles, a stage after another one);
    frames of a video are looked at one by one. The Fourier transform is two products in float64, exactly as filtered.
    Cost: O(n d (h + w)) at the first stage, and one row of attention.
    """

    name: ClassVar[str] = "clse"
    title: ClassVar[str] = "CLSE"
    source: ClassVar[str] = "arXiv:2606.24165"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.LAST_QUERY_ATTENTION})
    wants: ClassVar[frozenset[Signal]] = frozenset({Signal.PREVIOUS_FEATURES})
    default_layer: ClassVar[int | None] = 1
    question_aware: ClassVar[bool] = True

    evolving: bool = True  # weigh the attention by the change of detail

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        score = mean_of_heads(read(self, tokens, Signal.LAST_QUERY_ATTENTION)[0])
        grid = tokens.grid
        whole = grid is not None and math.prod(grid) == len(tokens) and min(grid[1:]) > 1
        if self.evolving and grid is not None and whole:
            (previous,) = read(self, tokens, Signal.PREVIOUS_FEATURES)
            score = score * evolution(previous, tokens.features, grid)
        order = top(score, keep)
        return Selection(index=order.sort().values, order=order)

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        later = replace(self, evolving=False)
        steps = zip((self, later, later), counts(_COUNTS, keep), layers(_LAYERS, num_layers), strict=True)
        return list({layer: (method, k, layer) for method, k, layer in steps}.values())
