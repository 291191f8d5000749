"""The one way in which an op may read a value off its device, and the one way to put numbers there.

A read makes the host wait for the device. On a CPU there is nothing to wait for, so loops may end early by reading
a flag there; on any other device the loops run to a fixed bound and read nothing. Every read goes through
`declared_sync`, which is what the tests that forbid reads look for. Numbers that the host hands over wait as well.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["constant", "declared_sync", "in_declared_sync", "may_read"]

_inside: ContextVar[bool] = ContextVar("vlm_pruner_declared_sync", default=False)


@contextmanager
def declared_sync() -> Iterator[None]:
    """Marks the reads inside as meant."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def in_declared_sync() -> bool:
    """Is this read a declared one?"""
    return _inside.get()


def may_read(tensor: Tensor) -> bool:
    """Reading costs nothing: the tensor is on the CPU."""
    return tensor.device.type == "cpu"


@functools.lru_cache(maxsize=256)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[len(values)] on the device, handed over once; never to be written to, and cloned where others may do so."""
    return torch.tensor(values, dtype=dtype, device=device)
