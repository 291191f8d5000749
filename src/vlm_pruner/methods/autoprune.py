"""AutoPrune: the text's attention at every layer, on a schedule that follows how much it says about the image."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple, final

from torch import Tensor

from vlm_pruner.budget import Budget, Keep
from vlm_pruner.errors import PlanError
from vlm_pruner.methods._float64 import mean_of_heads
from vlm_pruner.methods._signals import read
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.basic import top
from vlm_pruner.ops.sync import declared_sync
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["AutoPrune", "Schedule", "information", "schedule", "steepness"]

_TOKENS, _LAYERS = 576, 32  # of the image and the model that the curve was made for
_CENTRE = 14.9  # layer at which the curve falls
_STEEPEST = 0.4  # of a curve, where the text says nothing about the image
_MOST = 2.5  # times the target, what is kept after the first layers


class Schedule(NamedTuple):
    """Counts after the layers 1 ... L - 1, and how they came about."""

    kept: list[int]
    merged: list[int]  # clusters that follow the kept tokens
    scale: float  # factor of the curve
    mean: float  # tokens per layer as the method counts them: the counts and once the whole image


def information(attention: Tensor) -> Tensor:
    """[] float64 mutual information, in bits, of text rows and image tokens, summed over heads.

    `attention` is [heads, t, n]; rows are taken as they are, whatever share of them falls on the image.
    """
    rows = attention.shape[1]
    joint = attention.double() / rows
    independent = joint.sum(1, keepdim=True) / rows
    return (joint * (joint / (independent + 1e-6)).clamp_min(1e-6).log2()).sum()


def steepness(information: float, flat: float = _STEEPEST, slope: float = 0.2) -> float:
    """How steeply the curve falls: 0.4 without any information, 0 from 2 bits on."""
    return max(flat - slope * information, 0.0)


def schedule(tokens: int, target: float, steep: float, num_layers: int = _LAYERS, clusters: bool = True) -> Schedule:
    """Counts that hold `target` tokens per layer on average: a logistic curve times the factor that does so.

    Args:
        tokens: of the image.
        steep: of the curve, `steepness(information)`.
        clusters: every cut leaves clusters of what it drops, as SparseVLM's.
    """
    curve = [0.75 / (1 + math.exp(steep * (i - (_CENTRE + steep)))) for i in range(1, num_layers)]
    wanted = num_layers * target
    whole = [int(tokens * f) for f in curve]
    if abs(sum(whole) + whole[-1] - wanted) < 1:
        return _counts(tokens, target, curve, 1.0, clusters)
    low, high = 0.0, 20.0
    tried: list[Schedule] = []
    while len(tried) < 200:
        tried.append(_counts(tokens, target, curve, (low + high) / 2, clusters))
        excess = tried[-1].mean * num_layers - wanted
        if abs(excess) < 0.01:
            break
        low, high = (low, tried[-1].scale) if excess > 0 else (tried[-1].scale, high)
    return min(tried, key=lambda s: abs(s.mean * num_layers - wanted))


def _counts(tokens: int, target: float, curve: list[float], scale: float, clusters: bool) -> Schedule:
    present, kept, merged = tokens, [], []
    for f in curve:
        kept.append(min(math.ceil((tokens - 1) * min(1.0, scale * f)), int(_MOST * target), tokens))
        pooled = int(0.3 * max(0, present - kept[-1])) + 1
        merged.append(min(pooled // 10 + 1, pooled) if clusters and present > kept[-1] else 0)
        present = kept[-1] + merged[-1]
    mean = (tokens + sum(kept) + sum(merged)) / (len(curve) + 1)
    return Schedule(kept, merged, scale, mean)


@final
@dataclass(frozen=True)
class AutoPrune(PruningMethod):
    """Keeps what the text attends to, and fewer tokens after every layer, along a logistic curve over the depth.

    `keep` by name is the paper's mean over the layers, as its code counts them: 128 of 576 leaves 226 tokens before
    layer 2 of 32 and 12 before the last.

    Args:
        steep: how steeply the curve falls, from 0 (one cut) to 0.4. None finds it in the picture and its question, as
            the code does: `steepness(information)` of the attention, 0 where many heads add up to two bits. Then `keep`
            is a ceiling, at every stage the most that any steepness leaves there.
        target: tokens per layer of 576 that the curve holds on average, and
        after: the layer of 32 behind which a stage acts; both are filled in by name for `steep=None`. Without a target
            it is `keep` of a stage.

    Source: "AutoPrune", arXiv:2509.23931, NeurIPS 2025; AutoLab-SAI-SJTU/AutoPrune.
    Deviates: a fixed steepness unless it is None, and then each stage reads the attention of its own layer over the
    tokens that are left, where the code reads that of layer 1 once: the mean over the layers is near the target, not at
    it. No clusters,
    whose ties the code breaks at random, and no first cut by [CLS] attention. Models of another depth, and images of
    another size, follow the curve of 32 layers and 576 tokens.
    Cost: O(heads t n) a stage, and the attention of the text rows in nearly every layer.
    """

    name: ClassVar[str] = "autoprune"
    title: ClassVar[str] = "AutoPrune"
    source: ClassVar[str] = "arXiv:2509.23931"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.TEXT_ATTENTION})
    default_layer: ClassVar[int | None] = 2
    question_aware: ClassVar[bool] = True

    steep: float | None = 0.2
    target: float | None = None
    after: int = 1

    def __post_init__(self) -> None:
        if self.steep is not None and not 0 <= self.steep <= _STEEPEST:
            raise PlanError(f"steep={self.steep} must lie in [0, {_STEEPEST}]")
        if self.steep is not None and (self.target, self.after) != (None, 1):
            raise PlanError("target and after are for steep=None, which finds the steepness in the picture")
        if self.target is not None and not 0 < self.target <= _TOKENS:
            raise PlanError(f"target={self.target} must lie between 0 and {_TOKENS}")
        if not 1 <= self.after < _LAYERS:
            raise PlanError(f"after={self.after} is not one of the layers 1 to {_LAYERS - 1}")

    @property
    def budget(self) -> Budget:
        return "fixed" if self.steep is not None else "ceiling"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        (attention,) = read(self, tokens, Signal.TEXT_ATTENTION)
        if self.steep is None:
            with declared_sync():  # how many stay is seen in the attention alone
                keep = self._share_of(keep, steepness(float(information(attention))))
        order = top(mean_of_heads(attention).mean(0), keep)
        return Selection(index=order.sort().values, order=order)

    def _share_of(self, keep: int, steep: float) -> int:
        """Tokens that stay of the ceiling `keep` at this steepness."""
        target = min(_TOKENS, keep) if self.target is None else self.target
        own = schedule(_TOKENS, target, steep, clusters=False).kept[self.after - 1]
        return min(keep, max(1, round(keep * own / max(1, _ceilings(target)[self.after - 1]))))

    def stages(self, keep: Keep, num_layers: int) -> list[tuple[PruningMethod, Keep, int | None]]:
        target = keep * _TOKENS if isinstance(keep, float) else keep
        if target >= _TOKENS or num_layers < 3:
            return [(self, keep, min(2, max(1, num_layers - 1)))]
        own = self.steep is None  # every stage may leave fewer than its ceiling
        made = _ceilings(target) if self.steep is None else schedule(_TOKENS, target, self.steep, clusters=False).kept
        stages: list[tuple[PruningMethod, Keep, int | None]] = []
        before = _TOKENS
        for layer in range(2, num_layers):
            after = max(1, layer * _LAYERS // num_layers - 1)  # after layer i is before layer i + 1
            count = min(before, max(1, made[after - 1]))
            if count < before or own:
                method = dataclasses.replace(self, target=float(target), after=after) if own else self
                stages.append((method, _share(count) if isinstance(keep, float) else count, layer))
            before = count
        return stages


@cache
def _ceilings(target: float) -> list[int]:
    """The most that a curve of any steepness leaves after the layers 1 ... L - 1."""
    curves = [schedule(_TOKENS, target, _STEEPEST * i / 8, clusters=False).kept for i in range(9)]
    return [max(counts) for counts in zip(*curves, strict=True)]


def _share(count: int) -> float:
    """The share of all tokens that is `count` of 576, rounded down so that no ceiling makes it one more."""
    return math.floor(count * 10**12 / _TOKENS) / 10**12
