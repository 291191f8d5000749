"""A job: all rows of a source through one model under one plan, in one process, in those of torchrun, or on Ray.

Rows are cut into windows by number, and a window into batches by what its rows are: both depend on the job alone. So
every batch is the same whoever computes it, before and after a kill, and the output has the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from vlm_pruner.asking.models import Loaded, open_model
from vlm_pruner.asking.reader import Reader
from vlm_pruner.plan import PrunePlan
from vlm_pruner.serving.batch.answer import Answerer, Result
from vlm_pruner.serving.batch.collate import batches_of
from vlm_pruner.serving.batch.prepare import Opened, Reading, Window, windows
from vlm_pruner.serving.batch.results import Summary, finished, write_results
from vlm_pruner.serving.batch.rows import Source, open_source
from vlm_pruner.serving.batch.store import Record, Store

__all__ = ["Answering", "Engine", "Job", "Progress", "local", "read_ahead", "run_job", "unread"]

BATCHES = 4  # of full size in a window
PATIENCE = timedelta(days=7)  # for the slowest process of torchrun


@dataclass(frozen=True)
class Job:
    """What is asked of which model, and how; picklable, since processes of other machines get it."""

    source: str
    question: str | None
    model: str
    opening: Mapping[str, Any]  # arguments of `open_model`
    make: Callable[[Loaded], PrunePlan]  # the plan for the model
    max_new_tokens: int = 32
    batch: int = 16  # most rows of a batch
    workers: int = 1  # processes that read pictures
    threads: int | None = None  # of torch; None leaves them
    prepare: Callable[[], None] = field(default=lambda: None, repr=False)  # called in every process first
    pruning: Mapping[str, Any] = field(default_factory=dict)  # what `make` goes by, for the record

    @property
    def window(self) -> int:
        """Rows of a window."""
        return BATCHES * self.batch

    def about(self, source: Source) -> dict[str, Any]:
        """What the results depend on."""
        return {
            "rows": f"{len(source)} {source.fingerprint()}",
            "model": self.model,
            "opening": dict(self.opening),
            "pruning": dict(self.pruning),
            "max_new_tokens": self.max_new_tokens,
            "batch": self.batch,
        }


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    done: int
    total: int
    per_second: float  # rows, since this run began

    def __str__(self) -> str:
        return f"{self.done} of {self.total} rows, {self.per_second:.1f} a second"


Engine = Callable[[Job], Callable[[Mapping[int, Collection[int]]], Iterator[Record]]]
"""Makes what computes the windows of these numbers but for the rows that are known: `local`, or the same elsewhere."""


def run_job(
    job: Job,
    output: Path,
    *,
    engine: Engine | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Summary | None:
    """Answer all rows and write `output`; what an earlier run has answered is not asked again.

    Under torchrun every process takes its share, and all must see the folder of `output`; the first one writes it.

    Args:
        engine: what computes; None is `local`.

    Returns:
        None in all processes of torchrun but the first.

    Raises:
        InputError: no such model or source, nothing to read there, or another job's unfinished output.
        PlanError, MissingSignalError, UnsupportedModelError: the plan cannot be carried out on this model.
    """
    job.prepare()
    source = open_source(job.source, job.question)
    about = job.about(source)
    with _processes() as (rank, world, wait):
        if (before := finished(output, about)) is not None:
            return before if rank == 0 else None
        compute = (engine or local)(job)  # first: a model or a plan that cannot be had leaves nothing behind
        store = Store(output, about)
        known = store.read()
        todo = _todo(range(rank, -(-len(source) // job.window), world), known.results, len(source), job.window)
        began, done = time.monotonic(), len(known.results)
        for record in compute(todo) if todo else ():
            store.append(record)
            done += len(record.results)
            seconds = max(1e-9, time.monotonic() - began)
            progress(Progress(done, len(source), (done - len(known.results)) / seconds))
        wait()
        if rank:
            return None
        summary = write_results(output, about, source, store.read(), job.window)
        store.remove()
        return summary


def local(job: Job) -> Callable[[Mapping[int, Collection[int]]], Iterator[Record]]:
    """An `Engine` in this process: a record for every batch, with windows read ahead."""
    return read_ahead(job, Answering(job))


def read_ahead(
    job: Job, answering: Callable[[Window, Collection[int]], Iterator[Record]], read: Reading = Reader.inputs
) -> Callable[[Mapping[int, Collection[int]]], Iterator[Record]]:
    """What computes windows by `answering`, which is given what `read` makes of their rows."""
    opened = Opened(job.model, job.opening, job.max_new_tokens, read)

    def compute(todo: Mapping[int, Collection[int]]) -> Iterator[Record]:
        source = open_source(job.source, job.question)
        for window in windows(source, todo, job.window, opened, job.workers):
            yield from answering(window, todo[window.number])

    return compute


class Answering:
    """The model of a job, loaded once, and what it makes of windows."""

    def __init__(self, job: Job) -> None:
        loaded = open_model(job.model, **job.opening)
        self.answerer = Answerer(loaded, job.make(loaded), job.max_new_tokens)
        self.batch, self.threads = job.batch, job.threads

    def __call__(self, window: Window, known: Collection[int]) -> Iterator[Record]:
        """A record for the rows that could not be read, and one for every batch, unless all of its rows are known."""
        if not window.unread.keys() <= set(known):
            yield unread(window)
        ready = window.ready
        for numbers in batches_of(ready, self.batch):
            if not set(numbers) <= set(known):
                with _threads(self.threads):
                    batch = self.answerer.answer([ready[number] for number in numbers])
                yield Record(dict(zip(numbers, batch.results, strict=True)), batch.milliseconds, batch.costs)


def unread(window: Window) -> Record:
    """The rows of a window that could not be read."""
    return Record({number: Result(error=error) for number, error in window.unread.items()})


def _todo(numbers: Iterable[int], known: Collection[int], rows: int, window: int) -> dict[int, Sequence[int]]:
    """Windows with rows that are not known, each with those that are."""
    todo: dict[int, Sequence[int]] = {}
    for number in numbers:
        own = range(number * window, min(rows, (number + 1) * window))
        there = [row for row in own if row in known]
        if len(there) < len(own):
            todo[number] = there
    return todo


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Within the block torch has so many threads: sums of floats depend on how many share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _processes() -> Iterator[tuple[int, int, Callable[[], Any]]]:
    """(rank, processes, what waits for all of them) under torchrun; else (0, 1, nothing)."""
    import torch.distributed as dist

    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield 0, 1, lambda: None
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield dist.get_rank(), dist.get_world_size(), dist.barrier
    finally:
        dist.destroy_process_group()
