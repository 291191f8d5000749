"""What happened in the forwards of a session, and the report made of it."""

from __future__ import annotations

import functools
import threading
import weakref
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from vlm_pruner.adapters.base import plane
from vlm_pruner.budget import Keep, layer_average
from vlm_pruner.engine.clock import Mark, elapsed_ms
from vlm_pruner.engine.costs import costs_of
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.prompt import ImageState, Prompt
from vlm_pruner.engine.reuse import Prefix, begin, take, waiting
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.flops import VisionShape, kv_bytes, prefill_flops, vision_flops
from vlm_pruner.plan import PrunePlan
from vlm_pruner.report import ImageReport, PruneReport, SessionTotal
from vlm_pruner.types import Selection

__all__ = ["KEPT", "ImageRecord", "Recorder"]

KEPT = 64  # calls whose report can still be read one by one


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
class _Prefill:
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
class _Call:
    """A prefill and the decode steps after it."""

    prefill: _Prefill
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


class Recorder:
    """Keeps the last calls, and the sum of all. Safe to be fed by several threads."""

    def __init__(self, parts: Parts, plan: PrunePlan) -> None:
        self._parts, self._plan = parts, plan
        self._lock = threading.Lock()
        self._calls: list[_Call] = []  # the newest last
        self._past = SessionTotal()  # of those that were forgotten
        self._costs = functools.cache(lambda: costs_of(parts))

    def begin(self, prefix: Prefix) -> None:
        """The last prefill was that of `prefix`."""
        with self._lock:
            call = self._of(prefix.cache)
            assert call is not None
            call.prefill = replace(call.prefill, notes=())  # it ends with a picture on purpose
            begin(prefix, call.prefill)

    def _of(self, cache: Any) -> _Call | None:
        """The call that goes on with a cache: threads and talks may take turns."""
        calls = reversed(self._calls)
        return next((call for call in calls if call.cache is not None and call.cache() is cache), None)

    def check(self, fwd: Forward) -> None:
        """Raise where the question behind a prefix is sent in another way than it was prepared for.

        Raises:
            UnsupportedModelError: the whole prompt once more, or in another number of rows.
        """
        question = waiting(fwd.cache)
        if question is None or not question.whole:
            return
        rows, length = fwd.input.shape[:2]
        if rows != question.rows:
            raise UnsupportedModelError(
                f"{rows} rows go on from a prefix that was prepared for {question.rows}: for beams or several answers, "
                f"prefix.inputs(..., copies={rows})"
            )
        if length >= question.whole or fwd.arguments.get("use_cache") is False:
            raise UnsupportedModelError(
                f"prompt lookup, assisted decoding and use_cache=False send tokens again that are in the cache of the "
                f"prefix ({length} tokens came, {question.whole - question.reused} were asked): pass the whole prompt"
            )

    def note(self, fwd: Forward, ended: Mark, filled: Any) -> None:
        """The language model has run once, and filled a cache."""
        if fwd.started is None:
            return
        begun, generation = take(fwd.cache), fwd.generation
        if begun is None and fwd.prefill is None and generation is not None and generation.aside(fwd.cache):
            return
        if begun is None and fwd.prefill is None and not fwd.first:
            with self._lock:
                call = self._of(fwd.cache) or (self._calls[-1] if self._calls else None)
                if call is not None:
                    call.step(fwd.started, ended)
            return
        if begun is not None:
            asked, run = fwd.input.shape[1], begun.run
            lengths = [[n + asked for n in stage] * begun.rows for stage in run.lengths]
            prefill = replace(
                run, rows=[n + asked for n in run.rows] * begun.rows, lengths=lengths, started=fwd.started, ended=ended,
                selecting=[], reused=begun.reused, saved_ms=begun.saved_ms, copies=begun.rows,
            )  # fmt: skip
        else:
            prefill = self._read(fwd, fwd.started, ended)
        again = generation is not None and generation.noted
        if generation is not None and prefill.images:
            generation.noted, generation.cache, generation.copies = True, filled, prefill.copies
        self._begin(_Call(prefill, None if filled is None else weakref.ref(filled)), again)

    def _begin(self, call: _Call, again: bool) -> None:
        """Put a call at the end; the same prompt, sent `again` for want of a cache, takes the place of itself."""
        with self._lock:
            if again and self._calls:
                self._calls.pop()
            self._calls.append(call)
            if len(self._calls) > KEPT:
                self._past += self._made(self._calls.pop(0))

    def _read(self, fwd: Forward, started: Mark, ended: Mark) -> _Prefill:
        itemsize = self._parts.dtype.itemsize
        pictures = fwd.prefill
        if pictures is None:
            batch, length = fwd.input.shape[:2]
            note = "no image in the prompt: nothing to prune"
            return _Prefill([], [length] * batch, [], started, ended, [], itemsize, (note,))
        prompt = pictures.prompt
        rows = prompt.real.sum(1).tolist()
        known = fwd.generation  # of a prompt that is sent again, whose rows have come to differ
        copies = known.copies if known is not None and known.noted else prompt.copies
        images = [_record(i, i.span.row // copies) for i in prompt.images if i.span.row % copies == 0]
        notes = _notes(prompt, images, copies)
        tower = tuple(run for each in pictures.encoded.values() if each.tower for run in each.tower.run)
        lengths = [prompt.row_lengths(stage) for stage in range(len(pictures.levels))]
        timed = (started, ended, pictures.selecting)
        return _Prefill(images, rows, lengths, *timed, itemsize, notes, copies, tower=tower)

    @property
    def images(self) -> list[ImageRecord]:
        with self._lock:
            return list(self._calls[-1].prefill.images) if self._calls else []

    def reports(self) -> tuple[PruneReport, ...]:
        """Of the last calls, the newest last; waits for the device if it is still at work on one."""
        with self._lock:
            return tuple(self._made(call) for call in self._calls)

    def report(self) -> PruneReport:
        """Of the newest call."""
        with self._lock:
            return self._made(self._calls[-1]) if self._calls else PruneReport((), self._plan)

    def total(self) -> SessionTotal:
        """Of all calls."""
        with self._lock:
            total = self._past
            for call in self._calls:
                total += self._made(call)
            return total

    def _made(self, call: _Call) -> PruneReport:
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

    def _tower_cost(self, prefill: _Prefill) -> dict[str, int]:
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

    def _cost(self, prefill: _Prefill) -> dict[str, int]:
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


def _notes(prompt: Prompt, images: list[ImageRecord], copies: int) -> tuple[str, ...]:
    """What somebody who reads the report might not expect of its rows, each of which was run `copies` times."""
    alone = sorted(set(range(len(prompt.real) // copies)) - {image.row for image in images})
    said = [f"rows without an image, left alone: {', '.join(map(str, alone))}"] if alone else []
    ends = set()
    for image in prompt.images:
        behind = prompt.real[image.span.row, int(image.span.slots[-1]) + 1 : prompt.end]
        if image.stages and not bool(behind.any()):
            ends.add(image.span.row // copies)
    if ends:
        names = ", ".join(map(str, sorted(ends)))
        said.append(f"rows that end with an image, and are answered from the last token that is left of it: {names}")
    return tuple(said)


def _record(image: ImageState, row: int) -> ImageRecord:
    layout = image.span.layout
    position = layout.position
    if position is None:
        position = plane(*layout.grid)
    return ImageRecord(
        row=row,
        index=image.span.index,
        modality=image.span.modality,
        grid=layout.grid,
        position=position,
        stages=tuple(image.stages),
        counts=tuple(image.counts),
        total=image.total,
        kept=image.count,
        note=image.note,
    )
