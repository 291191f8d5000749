"""Random inputs of the ops, in views whose surroundings are NaN, and the implementations that are held to `naive`."""

from __future__ import annotations

import importlib.util
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from vlm_pruner.ops import use_backend

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

triton = pytest.param(
    "triton", marks=pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
)
numba = pytest.param(
    "numba", marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
)
READS_NOTHING = [
    "unread",
    triton,
]
FAST = ["torch", *READS_NOTHING, numba]


def of_sizes(*sizes: tuple[int, ...]) -> list[Any]:
    """Parameters `backend, n, ...`: every fast backend with every size. More than 100 tokens take Triton's interpreter
    seconds: they run with the slow tests."""
    return [_with(one, size, slow=_name(one) == "triton" and size[0] > 100) for one in FAST for size in sizes]


def of_shares(shares: int, **always: Container[int]) -> list[Any]:
    """Parameters `backend, share`: the named backends with all shares of a list of random cases. Shares that are not
    named run with the slow tests."""
    backends = [one for one in ("torch", numba, triton) if _name(one) in always]
    return [_with(one, (share,), slow=share not in always[_name(one)]) for one in backends for share in range(shares)]


def _name(backend: Any) -> str:
    return backend if isinstance(backend, str) else str(backend.values[0])


def _with(backend: Any, rest: tuple[int, ...], slow: bool) -> Any:
    marks = [] if isinstance(backend, str) else [*backend.marks]
    return pytest.param(_name(backend), *rest, marks=[*marks, *([pytest.mark.slow] if slow else [])])


@contextmanager
def running(backend: str) -> Iterator[None]:
    """Ops run on `backend`; "unread" is torch as on a device whose values are not to be read.

    Methods read nothing either where the backend is one of devices, whatever the machine of the test.
    """
    ops = ("growth.torch", "maxmin.torch", "pivots.torch", "screen.torch") if backend == "unread" else ()
    methods = ("methods.base", "methods.vlm_pruner") if backend in ("unread", "triton") else ()
    with pytest.MonkeyPatch.context() as patch, use_backend("torch" if backend == "unread" else backend):
        for module in (*(f"ops.{op}" for op in ops), *methods):
            patch.setattr(importlib.import_module(f"vlm_pruner.{module}"), "may_read", lambda _: False)
        yield


def poisoned(values: Tensor) -> Tensor:
    """The same values as a view into a larger tensor of NaN: whoever reads beyond it finds out."""
    around = torch.full([size + 3 for size in values.shape], torch.nan, dtype=values.dtype, device=DEVICE)
    view = around[tuple(slice(1, size + 1) for size in values.shape)]
    view.copy_(values)
    return view


def unwritten(tensor: Tensor) -> Tensor:
    """`tensor` as memory that nobody has written yet: NaN, or a token that there is not."""
    return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor.fill_(127)


def blobs(n: int, d: int, seed: int, groups: int = 6, noise: float = 0.4, copies: int = 0) -> Tensor:
    """[n, d] rows around a few centres with a shared direction; the last `copies` of them repeat earlier ones."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, d, generator=generator)
    rows = centres[torch.randint(groups, (n,), generator=generator)] + 0.5 * torch.randn(d, generator=generator)
    rows += noise * torch.randn(n, d, generator=generator)
    if copies:
        rows[n - copies :] = rows[torch.randint(n - copies, (copies,), generator=generator)]
    return rows


def grid_of(n: int) -> tuple[int, int]:
    """(rows, columns) of a grid of n tokens, as square as it can be."""
    rows = next(r for r in range(int(n**0.5), 0, -1) if n % r == 0)
    return rows, n // rows


def raster(n: int) -> tuple[Tensor, Tensor]:
    """([n, 2] places of such a grid, [] its diagonal)."""
    rows, columns = grid_of(n)
    i = torch.arange(n)
    return torch.stack([i // columns, i % columns], 1).float(), torch.tensor(float((rows**2 + columns**2) ** 0.5))
