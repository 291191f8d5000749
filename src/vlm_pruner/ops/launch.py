"""What the kernels share: programs that work on one image together, and how these agree. They compute in float64.

A selection is a loop in which every step needs the outcome of the one before. One launch goes through the whole loop:
each image has a crew of programs on the device, each of which looks after some of the tokens, and which wait for one
another by counting arrivals. That is safe as long as all of them run at the same time, which a cooperative launch
guarantees (it is refused where it cannot be). A crew of one needs no counting; the interpreter, which runs programs
one after another, has only those.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "OPTIONS",
    "Crew",
    "at_home",
    "best_of_crew",
    "better",
    "interpreted",
    "inverse",
    "lower",
    "lowest",
    "meet",
    "on_grid",
    "part",
    "share",
]

OPTIONS = {"enable_fp_fusion": True}
"""Of every launch; said aloud, because the default of Triton is about to change."""

_ON_DEVICE, _INTERPRETED = 16, 256  # tokens: many where every operation has its price
_LOWEST = tl.constexpr(-1.7976931348623157e308)
_ROUNDER = tl.constexpr(1.5 * 2.0**26)  # what is added to it, in float64, is rounded to a multiple of 2^-26
_NOBODY = tl.constexpr(0x7FFFFFFF)
Run = TypeVar("Run", bound=Callable[..., Any])


def at_home(run: Run) -> Run:
    """`run` with the device of its first tensor, or first of several, as the current one: there Triton launches."""

    @functools.wraps(run)
    def there(first: Tensor | Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        with torch.cuda.device_of(first if isinstance(first, Tensor) else first[0]):  # type: ignore[no-untyped-call]
            return run(first, *args, **kwargs)

    return cast(Run, there)


def interpreted() -> bool:
    """Do kernels run in Triton's interpreter?"""
    return os.environ.get("TRITON_INTERPRET") == "1"


def share() -> int:
    """Tokens that a program compares at a time."""
    return _INTERPRETED if interpreted() else _ON_DEVICE


def residents(device: torch.device) -> int:
    """Programs that are sure to run at the same time: one per multiprocessor. Asks the driver, not the device."""
    return 1 if interpreted() else torch.cuda.get_device_properties(device).multi_processor_count


class Crew:
    """The programs that work on each of `batch` images of so many `tiles`, and where they meet.

    There are slots for the largest crew of the device, so that no size of an image has a kernel of its own. Only the
    count of arrivals begins with a value: what a kernel can set itself is not worth a launch.
    """

    def __init__(self, batch: int, tiles: int, device: torch.device) -> None:
        everybody = residents(device)
        self.size = max(1, min(tiles, everybody // batch))
        self.grid = (batch, self.size)
        slots = 1 if self.size == 1 else triton.next_power_of_2(everybody)
        self.arrivals = torch.zeros(batch, dtype=torch.int32, device=device)
        self.scores = torch.empty(batch, 2, slots, dtype=torch.float64, device=device)  # of two steps in turn
        self.tokens = torch.empty(batch, 2, slots, dtype=torch.int32, device=device)
        self.options = {"SLOTS": slots, "launch_cooperative_grid": self.size > 1, **OPTIONS}


@triton.jit
def lowest():
    """-inf in float64, with which a search for the best begins."""
    return tl.full((), float("-inf"), tl.float64)


@triton.jit
def inverse(x):
    """1 / x, and 0 for 0."""
    return 1.0 / tl.where(x > 0, x, float("inf"))


@triton.jit
def meet(arrivals, rounds, ALONE: tl.constexpr):
    """Wait for the crew of this image, for the `rounds`-th time: what it stored before may now be loaded.

    The barriers make the stores of all threads part of what the counting thread releases, and its acquisition theirs.
    """
    tl.debug_barrier()
    if not ALONE:
        everyone = rounds * tl.num_programs(1)
        arrived = tl.atomic_add(arrivals, 1, sem="acq_rel") + 1
        while arrived < everyone:
            arrived = tl.atomic_add(arrivals, 0, sem="acquire")
        tl.debug_barrier()


@triton.jit
def part(rows, token, real, channel, sizes):
    """[tokens, channels] of the features in float64; `sizes` are n, d and the strides of a row."""
    address = token.to(tl.int64)[:, None] * sizes[2] + channel[None, :] * sizes[3]
    x = tl.load(rows + address, mask=real[:, None] & (channel < sizes[1])[None, :], other=0.0)
    return x.to(tl.float32).to(tl.float64)


@triton.jit
def on_grid(x):
    """Entries of rows of unit length on the grid of `vlm_pruner.ops.basic`, from float64 to float64."""
    return ((x + _ROUNDER) - _ROUNDER).to(tl.float32).to(tl.float64)


@triton.jit
def lower(near, score, token, real, latest):
    """The least `score` of each token so far, which `near` remembers; the token `latest` is out for good."""
    score = tl.minimum(tl.load(near + token, mask=real, other=0.0), score)
    score = tl.where(token == latest, float("-inf"), score)
    tl.store(near + token, score, mask=real)
    return score


@triton.jit
def better(best, which, score, token, real):
    """(largest score so far, its token) with the tokens of one more tile; ties go to the lower token.

    Whoever scores -inf is out. Not so a NaN: it comes last, for a step must end with a token, whatever was computed.
    """
    real = real & (score != float("-inf"))
    score = tl.where(real, tl.maximum(score, _LOWEST), float("-inf"))  # the maximum with a NaN is the other one
    highest = tl.max(score, 0)
    first = tl.min(tl.where(real & (score == highest), token, _NOBODY), 0)
    return tl.maximum(highest, best), tl.where(highest > best, first, which)


@triton.jit
def best_of_crew(best, token, scores, tokens, arrivals, step, SLOTS: tl.constexpr):
    """(largest score, its token) of all programs of this image, each of which brings its best; the meeting `step` + 1.

    Two sets of slots take turns: who writes the next step cannot disturb those who still read this one.
    """
    if SLOTS > 1:
        own = step % 2 * SLOTS + tl.program_id(1)
        tl.store(scores + own, best)
        tl.store(tokens + own, token)
    meet(arrivals, step + 1, SLOTS == 1)
    if SLOTS > 1:
        lane = tl.arange(0, SLOTS)
        score = tl.load(scores + step % 2 * SLOTS + lane)
        which = tl.load(tokens + step % 2 * SLOTS + lane)
        best, token = better(lowest(), 0, score, which, lane < tl.num_programs(1))
    return best, token
