"""Recurrences round to float32 in a model of any dtype, and a step has another formula than a prompt: stock answers of
tiny models differ by up to 3e-4 with a cache and without. Here they round no more than the rest of the model does, so
that one tolerance serves all families."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["exact"]

_WIDER = {"float32": torch.float64, "float": torch.float64}


class _Wider:
    """`torch` as seen by the modules of a model, where float32 is float64."""

    def __getattr__(self, name: str) -> Any:
        return _WIDER.get(name) or getattr(torch, name)


@contextlib.contextmanager
def exact(decoder: nn.Module) -> Iterator[None]:
    """Whatever the code of `decoder` rounds to float32 stays float64."""
    names = {name for part in decoder.modules() if (name := type(part).__module__).startswith("transformers.models.")}
    rooms: list[Any] = [sys.modules[name] for name in names]
    before, stock = [room.torch for room in rooms], Tensor.float

    def wider(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.double() if sys._getframe(1).f_globals["__name__"] in names else stock(self, *args, **kwargs)

    Tensor.float = wider  # type: ignore[method-assign]
    for room in rooms:
        room.torch = _Wider()
    try:
        yield
    finally:
        Tensor.float = stock  # type: ignore[method-assign]
        for room, known in zip(rooms, before, strict=True):
            room.torch = known
