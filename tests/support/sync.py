"""A guard that fails a test when a value is read off the device outside a declared point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vlm_pruner.ops.sync import in_declared_sync

_METHODS = ("item", "tolist", "nonzero", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")
_OPS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "repeat_interleave"}


class UndeclaredReadError(AssertionError):
    """A selection waited for its device."""


class _Watch(TorchDispatchMode):
    """Catches the reads that never pass through a method of `Tensor`: masks as indices, scalars taken in C++."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if (name in _OPS or masked) and not in_declared_sync():
            raise UndeclaredReadError(f"aten.{name}{' with a mask' if masked else ''} reads a value off the device")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_undeclared_reads() -> Iterator[None]:
    """Inside, reading a value off a tensor raises, unless it happens in `declared_sync`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in _METHODS:
            patch.setattr(torch.Tensor, name, _guarded(name, getattr(torch.Tensor, name)))
        with _Watch():
            yield


def _guarded(name: str, original: Any) -> Any:
    def read(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not in_declared_sync():
            raise UndeclaredReadError(f"Tensor.{name} reads a value off the device")
        return original(self, *args, **kwargs)

    return read
