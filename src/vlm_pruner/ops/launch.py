"""What the kernels share: images as one tensor, and the best of all programs of the launch before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["best_in", "best_of", "together"]


def together(images: Sequence[Tensor]) -> Tensor:
    """[B, ...] the images in one tensor; one alone is not copied."""
    return images[0][None] if len(images) == 1 else torch.stack(list(images))


def share(tensor: Tensor) -> int:
    """Tokens that one program looks after: few on a device, more where the interpreter runs them one by one."""
    return 16 if tensor.is_cuda else 256


@triton.jit
def inverse(x):
    """1 / x, and 0 for 0."""
    return 1.0 / tl.where(x > 0, x, float("inf"))


@triton.jit
def best_in(score, token, real):
    """(largest score, its token) of the tokens of one program; ties go to the lower token."""
    score = tl.where(real, score, float("-inf"))
    best = tl.max(score, 0)
    return best, tl.min(tl.where(real & (score == best), token, 0x7FFFFFFF), 0)


@triton.jit
def best_of(scores, tokens, programs, PROGRAMS: tl.constexpr):
    """The token of the largest of the `scores` that the programs of one image left; ties go to the lower token."""
    program = tl.arange(0, PROGRAMS)
    score = tl.load(scores + program, mask=program < programs, other=float("-inf"))
    token = tl.load(tokens + program, mask=program < programs, other=0x7FFFFFFF)
    return tl.min(tl.where(score == tl.max(score, 0), token, 0x7FFFFFFF), 0)
