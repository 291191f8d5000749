"""Schedules of methods that prune at several layers: published layers and counts, carried over to other sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlm_pruner.budget import Keep

__all__ = ["counts", "layers", "scaled"]


def layers(published: Sequence[int], num_layers: int, of: int = 32) -> list[int]:
    """Layers published for a model of `of` layers, at the same depth of one of `num_layers`: ascending, from 1 on.

    In a model too shallow to tell two stages apart they share a layer; the caller keeps the later one.
    """
    found: list[int] = []
    for left, layer in zip(range(len(published) - 1, -1, -1), published, strict=True):
        place = max(found[-1] + 1 if found else 1, (2 * layer * num_layers + of) // (2 * of))
        found.append(max(1, min(place, num_layers - 1 - left)))
    return found


def counts(table: Mapping[int, Sequence[int]], keep: Keep, of: int = 576) -> list[Keep]:
    """What stays after each stage for the nominal budget `keep`, linear between the rows of a published `table`.

    The table speaks of images of `of` tokens; 0 keeps nothing and `of` everything. A share gives shares of the image's
    own tokens, a count gives counts.
    """
    width = len(next(iter(table.values())))
    points: dict[int, Sequence[int]] = {0: [0] * width, **table, of: [of] * width}
    nominal = keep * of if isinstance(keep, float) else min(keep, of)
    low = max(p for p in points if p <= nominal)
    high = min(p for p in points if p >= nominal)
    part = (nominal - low) / (high - low) if high > low else 0.0
    values = [a + part * (b - a) for a, b in zip(points[low], points[high], strict=True)]
    if isinstance(keep, float):
        return [scaled(1.0, v / of) for v in values]
    return [max(1, round(v)) if keep <= of else keep for v in values]


def scaled(keep: Keep, factor: float) -> Keep:
    """`keep` times `factor`: a share stays a share of at most 1, a count a count of at least 1 (rounded half up)."""
    if isinstance(keep, float):
        return min(1.0, round(keep * factor, 12))
    return max(1, int(keep * factor + 0.5))
