"""What is noted of a call, and the report that is made of it."""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vlm_pruner.budget import Keep, layer_average
from vlm_pruner.engine.clock import Mark, elapsed_ms
from vlm_pruner.engine.costs import costs_of
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.flops import VisionShape, kv_bytes, prefill_flops, vision_flops
from vlm_pruner.plan import PrunePlan
from vlm_pruner.report import ImageReport, PruneReport
from vlm_pruner.types import Selection

__all__ = ["Call", "ImageRecord", "Run", "Summary"]


@dataclass(frozen=True)
class ImageRecord:
    """One image of the last prefill: all that a picture of the pruning needs."""

    row: int  # of the batch as it was passed; the rows that beams and samples make of one are one
    index: int  # number of the image in its row
    modality: str
    grid: tuple[int, int, int]  # (t, h, w) of the plane in which the tokens lie
    position: Tensor  # [n, 3] float32 (t, y, x) of every token in that plane
    stages: tuple[tuple[int, Keep, Selection], ...]  # (layer, keep, choice in the image's own coordinates)
    counts: tuple[int, ...]  # tokens left after each stage of the plan
    total: int
    kept: int
    note: str

    @property
    def selection(self) -> Selection | None:
        """The last choice; None if the image was left alone or all of it kept."""
        return self.stages[-1][2] if self.stages else None


@dataclass
class Run:
    """A prefill, or a prompt without pictures."""

    images: list[ImageRecord]
    rows: list[int]  # tokens of every row before pruning, padding left out
    lengths: list[list[int]]  # tokens of every row after each stage
    started: Mark
    ended: Mark
    selecting: list[tuple[Mark, Mark]]
    itemsize: int
    notes: tuple[str, ...]
    copies: int = 1  # rows that beams or samples have made of each
    reused: int = 0  # tokens of the prefix that it went on from
    saved_ms: float | None = None  # what they took when they were run
    tower: tuple[Any, ...] = ()  # of every picture that a stage cut before the tower: patches, side, kept tokens


@dataclass
class Call:
    """A prefill and the decode steps after it."""

    prefill: Run
    cache: weakref.ref[Any] | None  # that it filled
    steps: list[tuple[Mark, Mark]] = field(default_factory=list)
    decoded: int = 0
    decode_ms: float = 0.0

    def step(self, started: Mark, ended: Mark) -> None:
        self.decoded += 1
        self.steps.append((started, ended))
        if len(self.steps) >= 64:  # the first of them are long done, so that reading them waits for little
            self.drain()

    def drain(self) -> None:
        self.decode_ms += sum(elapsed_ms(*step) for step in self.steps)
        self.steps.clear()


class Summary:
    """Makes reports of calls, for one plan on one model."""

    def __init__(self, parts: Parts, plan: PrunePlan) -> None:
        self._parts, self._plan = parts, plan
        self._costs = functools.cache(lambda: costs_of(parts))

    def of(self, call: Call) -> PruneReport:
        call.drain()
        prefill = call.prefill
        selecting = sum(elapsed_ms(*pair) for pair in prefill.selecting)
        return PruneReport(
            images=tuple(self._image(i) for i in prefill.images),
            plan=self._plan,
            selection_ms=selecting if prefill.images else None,
            prefill_ms=elapsed_ms(prefill.started, prefill.ended),
            decode_ms_per_token=call.decode_ms / call.decoded if call.decoded else None,
            decoded_tokens=call.decoded,
            notes=prefill.notes,
            reused_tokens=prefill.reused,
            saved_ms=prefill.saved_ms,
            **self._cost(prefill),
            **self._tower_cost(prefill),
        )

    def _image(self, record: ImageRecord) -> ImageReport:
        average = layer_average(self._per_layer(record.total, record.counts))
        own = (record.row, record.index, record.modality, record.grid, record.total, record.kept)
        return ImageReport(*own, average, record.note, record.selection)

    def _per_layer(self, total: int, counts: tuple[int, ...] | list[int]) -> list[int]:
        """Tokens that enter each decoder layer."""
        left = [total, *counts]
        levels = [sum(s.site <= i for s in self._plan.stages) for i in range(len(self._parts.layers))]
        return [left[min(level, len(counts))] for level in levels]

    def _tower_cost(self, prefill: Run) -> dict[str, int]:
        if not prefill.tower:  # of a family without one, too
            return {}
        try:
            shape = VisionShape.from_config(self._parts.config.vision_config)
        except UnsupportedModelError:
            return {}
        return {
            "vision_flops_full": sum(vision_flops(shape, grid) for grid, _, _ in prefill.tower),
            "vision_flops_pruned": sum(vision_flops(shape, g, k.tolist(), side) for g, side, k in prefill.tower),
        }

    def _cost(self, prefill: Run) -> dict[str, int]:
        try:
            shape = self._costs()
        except UnsupportedModelError:
            return {}
        full = [self._per_layer(n, []) for n in prefill.rows]
        pruned = [self._per_layer(n, [stage[r] for stage in prefill.lengths]) for r, n in enumerate(prefill.rows)]
        return {
            "flops_full": sum(prefill_flops(shape, lengths) for lengths in full),
            "flops_pruned": sum(prefill_flops(shape, n, whole) for n, whole in zip(pruned, prefill.rows, strict=True)),
            "kv_bytes_full": sum(kv_bytes(shape, lengths, prefill.itemsize) for lengths in full),
            "kv_bytes_pruned": sum(kv_bytes(shape, lengths, prefill.itemsize) for lengths in pruned),
        }
