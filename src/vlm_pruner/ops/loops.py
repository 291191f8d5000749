"""What the loops of Numba share: how they are compiled, and how they see tensors.

They hold no lock of the interpreter, so that several threads can be in one at the same time.
"""

from __future__ import annotations

import functools
import inspect
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

from vlm_pruner.ops.sync import declared_sync

__all__ = ["as_written", "compiled", "dots", "doubles", "exact_dot", "inlined", "numbers", "on_grid", "slack", "value"]

_STRICT: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# Sums may be taken in any order and products fused with them, as everywhere; NaN and infinities are what they are.
_OPTIONS: dict[str, Any] = {**_STRICT, "fastmath": {"reassoc", "contract", "nsz"}}
_BITS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code, made at the first call and kept on disk where there is a place for it.

    What is kept is found by the name of the function and the age of its file. Functions of this file become part of
    what calls them, so that its check sum belongs to the name.
    """
    return _compiled(function, _OPTIONS)


def as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `compiled`, where every operation is rounded by itself: for what must round alike on all processors."""
    return _compiled(function, _STRICT)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `compiled`, as a part of the functions that call it: for what is called so often that a call counts."""
    return numba.njit(inline="always", **_OPTIONS)(function)  # type: ignore[no-any-return]


def _compiled(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    try:
        function.__qualname__ += f"-{_check_sum()}"
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except (OSError, RuntimeError):  # there is no source, or no folder that can be written to
        return numba.njit(**options)(function)  # type: ignore[no-any-return]


@functools.cache
def _check_sum() -> str:
    return f"{zlib.crc32(inspect.getsource(sys.modules[__name__]).encode()):08x}"


def numbers(tensor: Tensor) -> tuple[NDArray[Any], tuple[int, ...]]:
    """(the memory of a tensor from its first entry on, the strides of all axes but the last, which is dense).

    Numbers of half precision are the integers of their bits; `value` makes float32 of each where it is read.
    """
    if tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    strides = tensor.stride()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
    memory = tensor.detach().as_strided((extent,), (1,))
    with declared_sync():
        return memory.view(_BITS.get(tensor.dtype, tensor.dtype)).numpy(), strides[:-1]


def doubles(tensor: Tensor) -> NDArray[Any]:
    """A vector that is read more than once, in float64."""
    with declared_sync():
        return tensor.detach().double().contiguous().numpy()


def value(x: Any) -> Any:
    """An entry of `numbers` in float32; known to compiled loops only."""
    raise NotImplementedError


@overload(value)
def _value(x):  # type: ignore[no-untyped-def]  # compared with what it returns, name by name
    if x == numba.types.uint16:  # bfloat16: the upper half of a float32
        return lambda x: np.uint32(np.uint32(x) << 16).view(np.float32)
    if x == numba.types.int16:  # float16: exponents are 112 lower, but for those of infinity and NaN
        return _from_half
    return lambda x: np.float32(x)


def _from_half(x):  # type: ignore[no-untyped-def]
    bits = np.uint32(np.uint32(np.uint16(x) & 0x7FFF) << 13)
    number = bits.view(np.float32) * np.float32(2.0**112)
    if bits >= 0x0F800000:
        number = np.uint32(bits | 0x7F800000).view(np.float32)
    return -number if x < 0 else number


def slack(terms: int) -> float:
    """More than what float32 makes of a product of two rows of unit length, in whatever order it adds, is off by."""
    return (terms + 32) * 2.0**-24


@as_written
def on_grid(row, inverse, out):  # type: ignore[no-untyped-def]
    """Into `out`: a row of `numbers` times 1 / its length, on the grid of `vlm_pruner.ops.basic`, in float32."""
    for c in range(len(out)):
        out[c] = np.rint(value(row[c]) * inverse * 2.0**26) * 2.0**-26


@compiled
def dots(rows, stride, own, tokens, out):  # type: ignore[no-untyped-def]
    """Into `out`, in float64: the products of `own` with the rows of one to four `tokens`, 256 channels in float32."""
    d, last = len(own), len(tokens) - 1
    at0, at1 = tokens[0] * stride, tokens[min(1, last)] * stride
    at2, at3 = tokens[min(2, last)] * stride, tokens[last] * stride
    out[:] = 0
    for start in range(0, d, 256):
        part = own[start : start + 256]
        end = start + len(part)
        row0, row1 = rows[at0 + start : at0 + end], rows[at1 + start : at1 + end]
        row2, row3 = rows[at2 + start : at2 + end], rows[at3 + start : at3 + end]
        sum0, sum1, sum2, sum3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for c in range(len(part)):
            sum0 += part[c] * value(row0[c])
            sum1 += part[c] * value(row1[c])
            sum2 += part[c] * value(row2[c])
            sum3 += part[c] * value(row3[c])
        out[0] += sum0
        out[1] += sum1
        out[2] += sum2
        out[3] += sum3


@inlined
def exact_dot(one, other):  # type: ignore[no-untyped-def]
    """The product of two rows of a grid in float64, which is exact: see `vlm_pruner.ops.basic`."""
    total = 0.0
    for c in range(len(one)):
        total += np.float64(one[c]) * np.float64(other[c])
    return total
