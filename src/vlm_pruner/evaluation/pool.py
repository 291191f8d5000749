"""Work over several processes: tasks go out one by one, results come back as they are made."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vlm_pruner.errors import InputError, VlmPrunerError

__all__ = ["in_processes"]

_POLL_S = 1.0


def in_processes(work: Callable[[Iterator[int]], Iterator[Any]], tasks: Iterable[int], workers: int) -> Iterator[Any]:
    """What `work(tasks)` yields in each of `workers` processes, which take the tasks one by one. In no fixed order.

    Every process computes with one thread: on small models two processes beat one with two threads. `work` and what it
    yields are pickled.

    Raises:
        InputError: a process refused what it was given.
        RuntimeError: a process failed; the message holds its traceback.
    """
    context = multiprocessing.get_context("spawn")
    waiting, results = context.Queue(), context.Queue()
    for task in [*tasks, *[None] * workers]:
        waiting.put(task)
    processes = [context.Process(target=_worker, args=(work, waiting, results), daemon=True) for _ in range(workers)]
    with _ignored():  # Ctrl-C goes to every process of the terminal: this one hears it, and ends the others
        for process in processes:
            process.start()
    running = workers
    try:
        while running:
            try:
                kind, value = results.get(timeout=_POLL_S)
            except queue.Empty:
                if dead := [p.exitcode for p in processes if p.exitcode]:
                    raise RuntimeError(f"a worker process ended with exit code {dead[0]}") from None
                continue
            if kind == "refused":
                raise InputError(value)
            if kind == "failed":
                raise RuntimeError(f"a worker process failed:\n{value}")
            if kind == "end":
                running -= 1
            else:
                yield value
    finally:
        for process in processes:
            process.terminate()
            process.join()


@contextmanager
def _ignored() -> Iterator[None]:
    """Processes that are started within the block do not hear Ctrl-C, from their first moment on."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere signals cannot be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _worker(work: Callable[[Iterator[int]], Iterator[Any]], waiting: Any, results: Any) -> None:
    try:
        torch.set_num_threads(1)
        for value in work(_tasks(waiting)):
            results.put(("value", value))
        results.put(("end", None))
    except VlmPrunerError as error:
        results.put(("refused", str(error)))
    except BaseException:
        results.put(("failed", traceback.format_exc()))
        raise


def _tasks(waiting: Any) -> Iterator[int]:
    """Tasks until there are none, or until the process that wanted them is gone (killed, it could tell nobody)."""
    parent = multiprocessing.parent_process()
    while (parent is None or parent.is_alive()) and (task := waiting.get()) is not None:
        yield task
