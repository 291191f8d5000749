"""The number of CPU threads of a selection.

A selection is hundreds of small operations. Each one that is split over threads ends at a barrier, and where another
process has the core of one thread, all wait for its turn. Small selections therefore run on the thread that asks, and
those of a batch on several, each of which waits for the others once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["own_threads", "share_out"]

T = TypeVar("T")
R = TypeVar("R")
_ELEMENTS = 1 << 23  # numbers in the features (2048 tokens of width 4096) up to which one thread is enough
_allowed: ContextVar[int | None] = ContextVar("vlm_pruner_allowed_threads", default=None)


@contextmanager
def own_threads(features: Tensor) -> Iterator[None]:
    """One thread inside if `features` [n, d] are few and on the CPU; torch's setting is as before afterwards."""
    before = torch.get_num_threads()
    if features.device.type != "cpu" or before == 1 or features.numel() > _ELEMENTS:
        yield
        return
    token = _allowed.set(before)
    try:
        with _one_thread(before):
            yield
    finally:
        _allowed.reset(token)


def share_out(
    images: Sequence[T], function: Callable[..., list[R]], device: torch.device, *arguments: object
) -> list[R]:
    """`function` of all images, each of which it works on by itself, and of some arguments; on a CPU by threads.

    There are as many as torch had outside of `own_threads`. Where images are fewer than that, those which are so large
    that torch shares out every operation go one after the other.
    """
    before = torch.get_num_threads()
    crew = min(len(images), _allowed.get() or before)
    if device.type != "cpu" or crew < 2 or len(images) < before:
        return function(images, *arguments)
    inference, cuts = torch.is_inference_mode_enabled(), [len(images) * i // crew for i in range(crew + 1)]

    def work(part: Sequence[T]) -> list[R]:
        with torch.inference_mode(inference), torch.no_grad():  # both belong to a thread
            return function(part, *arguments)

    with _one_thread(before), ThreadPoolExecutor(crew) as pool:
        parts = [pool.submit(copy_context().run, work, images[a:b]) for a, b in pairwise(cuts)]
        return [made for part in parts for made in part.result()]


@contextmanager
def _one_thread(before: int) -> Iterator[None]:
    """Nothing is set where there is one already: another selection may be about to set it back."""
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)
