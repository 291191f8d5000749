"""The number of CPU threads of a selection.

A selection is hundreds of small operations. Each one that is split over threads ends at a barrier, and where another
process has the core of one thread, all wait for its turn. Small selections therefore run on the thread that asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["own_threads"]

_ELEMENTS = 1 << 23  # numbers in the features (2048 tokens of width 4096) up to which one thread is enough


@contextmanager
def own_threads(features: Tensor) -> Iterator[None]:
    """One thread inside if `features` [n, d] are few and on the CPU; torch's setting is as before afterwards."""
    before = torch.get_num_threads()
    if features.device.type != "cpu" or before == 1 or features.numel() > _ELEMENTS:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
