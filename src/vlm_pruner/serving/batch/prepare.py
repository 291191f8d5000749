"""Pictures decoded and prompts read ahead of the model, in other processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.asking.models import open_reader
from vlm_pruner.asking.opening import open_image, read_image
from vlm_pruner.asking.reader import Reader
from vlm_pruner.asking.videos import Shown, open_shown
from vlm_pruner.errors import VlmPrunerError, first_line
from vlm_pruner.serving.batch.rows import Row, Source
from vlm_pruner.video import Sampling

__all__ = ["Opened", "Prepared", "Reading", "Window", "read_window", "windows"]

AHEAD = 2  # windows that wait for the model
CRASHED = "reading its picture ended the process that did it"


Reading = Callable[[Reader, str, list[Shown], int], Mapping[str, Any]]
"""What makes a model's inputs of a question, what it is about, and the tokens for which there must be room."""


@dataclass(frozen=True)
class Prepared:
    """What the model reads of one row, or why it cannot."""

    inputs: Mapping[str, Any] | None
    error: str = ""


@dataclass(frozen=True)
class Window:
    """Rows that are prepared together, from which batches are made."""

    number: int
    start: int  # number of its first row
    prepared: list[Prepared]

    @property
    def unread(self) -> dict[int, str]:
        """Why rows could not be read, by their number."""
        return {self.start + i: one.error for i, one in enumerate(self.prepared) if one.error}

    @property
    def ready(self) -> dict[int, Mapping[str, Any]]:
        """What the model reads of all others."""
        return {self.start + i: one.inputs for i, one in enumerate(self.prepared) if one.inputs is not None}


@dataclass(frozen=True)
class Opened:
    """How a worker opens the model's reader."""

    model: str
    opening: Mapping[str, Any]  # arguments of `open_reader`
    answer: int  # tokens for which there must be room
    read: Reading = Reader.inputs


def windows(source: Source, numbers: Iterable[int], size: int, opened: Opened, workers: int) -> Iterator[Window]:
    """The windows of these numbers in their order, `size` rows each, read ahead by `workers` processes (0 = this one).

    Raises:
        InputError: the model's processor cannot be opened.
    """
    if not workers:
        reader = open_reader(opened.model, **opened.opening)
        for number in numbers:
            yield read_window(reader, source, number, size, opened.answer, opened.read)
        return
    pool = _Pool(opened, workers)
    waiting: deque[tuple[int, list[Row], list[Future[Any]]]] = deque()
    try:
        for number in numbers:
            rows = source.rows(number * size, (number + 1) * size)
            waiting.append((number, rows, [pool.submit(row) for row in rows]))
            if len(waiting) > AHEAD:
                yield pool.window(*waiting.popleft(), size)
        while waiting:
            yield pool.window(*waiting.popleft(), size)
    finally:
        pool.close()


def read_window(
    reader: Reader, source: Source, number: int, size: int, answer: int, read: Reading = Reader.inputs
) -> Window:
    """The window of this number, read here.

    Args:
        answer: tokens for which there must be room behind every prompt.
    """
    rows = source.rows(number * size, (number + 1) * size)
    return Window(number, number * size, [_prepare(reader, row, answer, read) for row in rows])


class _Pool:
    """Processes that are replaced when a picture kills one."""

    def __init__(self, opened: Opened, workers: int) -> None:
        self.opened, self.workers = opened, workers
        self.executor = self._new(workers)

    def submit(self, row: Row) -> Future[Any]:
        try:
            return self.executor.submit(_in_worker, row)
        except BrokenProcessPool:
            self.executor = self._new(self.workers)
            return self.executor.submit(_in_worker, row)

    def window(self, number: int, rows: list[Row], futures: list[Future[Any]], size: int) -> Window:
        found = [self._result(row, future) for row, future in zip(rows, futures, strict=True)]
        return Window(number, number * size, found)

    def close(self) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)

    def _new(self, workers: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(self.opened,))

    def _result(self, row: Row, future: Future[Any]) -> Prepared:
        """What a worker found; where one has died, each row that it took along is tried by itself."""
        try:
            return _unpacked(future.result())
        except BrokenProcessPool:
            with self._new(1) as alone:
                try:
                    return _unpacked(alone.submit(_in_worker, row).result())
                except BrokenProcessPool:
                    return Prepared(None, CRASHED)


_worker: tuple[Reader, int, Reading] | None = None


def _start(opened: Opened) -> None:
    """In a new process: the reader, once. The process ends with the one that made it, however that ends."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(1)
    _worker = open_reader(opened.model, **opened.opening), opened.answer, opened.read


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_worker(row: Row) -> Any:
    """Tensors travel as arrays: shared memory would outlive a killed job."""
    assert _worker is not None
    reader, answer, read = _worker
    made = _prepare(reader, row, answer, read)
    if made.inputs is None:
        return made
    return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in made.inputs.items()}


def _unpacked(found: Any) -> Prepared:
    if isinstance(found, Prepared):
        return found
    tensors = {name: torch.from_numpy(v) if hasattr(v, "__array__") else v for name, v in found.items()}
    return Prepared(tensors)


def _prepare(reader: Reader, row: Row, answer: int, read: Reading) -> Prepared:
    if row.error:
        return Prepared(None, row.error)
    try:
        shown = [_opened(reader, row, one, f"{row.id} image {i}") for i, one in enumerate(row.images)]
        return Prepared(read(reader, row.question, shown, answer))
    except VlmPrunerError as error:
        return Prepared(None, " ".join(str(error).split()))
    except Exception as error:  # one row never stops a job
        return Prepared(None, f"it cannot be read: {first_line(error)}")


def _opened(reader: Reader, row: Row, file: Path | bytes, name: str) -> Shown:
    if isinstance(file, bytes):
        return read_image(file, name)
    if row.sampling is None:
        return open_image(file)
    return reader.fitted(open_shown(file, row.sampling), row.sampling != Sampling())[0]
