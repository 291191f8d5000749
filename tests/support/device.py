"""A device that holds no values: whoever reads one, hands one over, or launches otherwise for others is found out.

Tensors are of the device "meta", where shapes are all there is, and the code takes them for a GPU's: what passes here
can be captured in a CUDA graph. Kernels are not run but written down.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import pytest
import torch
from tests.support.sync import UndeclaredReadError
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlm_pruner.ops import use_backend

PROCESSORS = 132
T = TypeVar("T")


class Launch(NamedTuple):
    """A kernel, its grid, and what it was given by name."""

    kernel: str
    grid: tuple[int, ...]
    options: dict[str, Any]

    def check(self) -> None:
        """Would a device take it?"""
        assert all(size <= limit for size, limit in zip(self.grid, (2**31 - 1, 65_535, 65_535), strict=False)), self
        if self.options.get("launch_cooperative_grid"):
            assert math.prod(self.grid) <= PROCESSORS, self


class _Apart(TorchDispatchMode):
    """Nothing passes between the host and the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        seen = {t.device.type for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)}
        if len(seen) > 1:
            raise UndeclaredReadError(f"aten.{func.overloadpacket.__name__} copies between {sorted(seen)}")
        return result


def moved(thing: T, device: str = "meta") -> T:
    """The same dataclass with its tensors elsewhere, nested ones included; on "meta" they hold nothing."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(thing):  # type: ignore[arg-type]
        value = getattr(thing, field.name)
        if isinstance(value, torch.Tensor):
            changes[field.name] = value.to(device)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = moved(value, device)
    return dataclasses.replace(thing, **changes)  # type: ignore[type-var]


@contextmanager
def kernels_written_down(backend: str) -> Iterator[list[Launch]]:
    """Inside, ops run on `backend` and every launch is added to the list instead of being made."""
    launches: list[Launch] = []

    def launch(self: Any, grid: tuple[int, ...]) -> Any:
        return lambda *args, **options: launches.append(Launch(self.fn.__name__, grid, options))

    with pytest.MonkeyPatch.context() as patch, use_backend(backend):
        patch.setattr(importlib.import_module("vlm_pruner.ops.dispatch"), "refusal", lambda *_: None)
        if importlib.util.find_spec("triton") is not None:
            patch.setattr(importlib.import_module("triton.runtime.jit").KernelInterface, "__getitem__", launch)
            patch.setattr(importlib.import_module("vlm_pruner.ops.launch"), "residents", lambda _: PROCESSORS)
        yield launches


@contextmanager
def nothing_handed_over() -> Iterator[None]:
    """Inside, a copy between host and device raises; reading a value does so on "meta" anyway."""
    tensor = torch.tensor

    def on_the_host(*args: Any, **kwargs: Any) -> torch.Tensor:
        if torch.device(kwargs.get("device") or "cpu").type != "cpu":
            raise UndeclaredReadError(f"torch.tensor{args} hands numbers over to the device")
        return tensor(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, _Apart():
        patch.setattr(torch, "tensor", on_the_host)
        yield


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name, views = func.overloadpacket.__name__, any(r.alias_info is not None for r in func._schema.returns)
        if name.endswith("_") or not (views or "empty" in name):
            self.ran.append(name)
        return result


@contextmanager
def counted_operations() -> Iterator[list[str]]:
    """The operations of torch that a device would be given: neither views nor memory that is not written to."""
    with _Counter() as counter:
        yield counter.ran
