"""Notes what happens in the forwards of a session: its last calls, and the sum of all."""

from __future__ import annotations

import threading
import weakref
from dataclasses import replace
from typing import Any

from vlm_pruner.engine.clock import Mark
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.prompt import ImageState, Prompt
from vlm_pruner.engine.records import Call, ImageRecord, Run, Summary
from vlm_pruner.engine.reuse import Prefix, begin, take
from vlm_pruner.engine.support import Parts
from vlm_pruner.plan import PrunePlan
from vlm_pruner.report import PruneReport, SessionTotal

__all__ = ["KEPT", "Recorder"]

KEPT = 64  # calls whose report can still be read one by one


class Recorder:
    """Keeps the last calls, and the sum of all. Safe to be fed by several threads."""

    def __init__(self, parts: Parts, plan: PrunePlan) -> None:
        self._parts, self._plan = parts, plan
        self._lock = threading.Lock()
        self._calls: list[Call] = []  # the newest last
        self._past = SessionTotal()  # of those that were forgotten
        self._summary = Summary(parts, plan)

    def begin(self, prefix: Prefix) -> None:
        """The last prefill was that of `prefix`."""
        with self._lock:
            call = self._of(prefix.cache)
            assert call is not None
            call.prefill = replace(call.prefill, notes=())  # it ends with a picture on purpose
            begin(prefix, call.prefill)

    def _of(self, cache: Any) -> Call | None:
        """The call that goes on with a cache: threads and talks may take turns."""
        calls = reversed(self._calls)
        return next((call for call in calls if call.cache is not None and call.cache() is cache), None)

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
        self._begin(Call(prefill, None if filled is None else weakref.ref(filled)), again)

    def _begin(self, call: Call, again: bool) -> None:
        """Put a call at the end; the same prompt, sent `again` for want of a cache, takes the place of itself."""
        with self._lock:
            if again and self._calls:
                self._calls.pop()
            self._calls.append(call)
            if len(self._calls) > KEPT:
                self._past += self._summary.of(self._calls.pop(0))

    def _read(self, fwd: Forward, started: Mark, ended: Mark) -> Run:
        itemsize = self._parts.dtype.itemsize
        pictures = fwd.prefill
        if pictures is None:
            batch, length = fwd.input.shape[:2]
            note = "no image in the prompt: nothing to prune"
            return Run([], [length] * batch, [], started, ended, [], itemsize, (note,))
        prompt = pictures.prompt
        rows = prompt.real.sum(1).tolist()
        known = fwd.generation  # of a prompt that is sent again, whose rows have come to differ
        copies = known.copies if known is not None and known.noted else prompt.copies
        images = [_record(i, i.span.row // copies) for i in prompt.images if i.span.row % copies == 0]
        notes = _notes(prompt, images, copies)
        tower = tuple(run for each in pictures.encoded.values() if each.tower for run in each.tower.run)
        lengths = [prompt.row_lengths(stage) for stage in range(len(pictures.levels))]
        timed = (started, ended, pictures.selecting)
        return Run(images, rows, lengths, *timed, itemsize, notes, copies, tower=tower)

    @property
    def images(self) -> list[ImageRecord]:
        with self._lock:
            return list(self._calls[-1].prefill.images) if self._calls else []

    def reports(self) -> tuple[PruneReport, ...]:
        """Of the last calls, the newest last; waits for the device if it is still at work on one."""
        with self._lock:
            return tuple(self._summary.of(call) for call in self._calls)

    def report(self) -> PruneReport:
        """Of the newest call."""
        with self._lock:
            return self._summary.of(self._calls[-1]) if self._calls else PruneReport((), self._plan)

    def total(self) -> SessionTotal:
        """Of all calls."""
        with self._lock:
            total = self._past
            for call in self._calls:
                total += self._summary.of(call)
            return total


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
    return ImageRecord(
        row=row,
        index=image.span.index,
        modality=image.span.modality,
        grid=layout.grid,
        position=layout.places(),
        stages=tuple(image.stages),
        counts=tuple(image.counts),
        total=image.total,
        kept=image.count,
        note=image.note,
    )
