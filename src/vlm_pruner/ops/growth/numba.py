"""The growth as one loop: cosines to a kept token are computed once, when it enters, and only the largest is kept.

They are computed in float32, whose rounding is known. A cosine that may be larger than all before is computed again in
float64, exactly, and nothing else is compared: on the way to 64 of 576 tokens that happens to one in twelve.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import torch
from torch import Tensor

from vlm_pruner.ops.growth import Grown
from vlm_pruner.ops.growth.rule import GrowthRule
from vlm_pruner.ops.loops import compiled, exact_dot, numbers, slack
from vlm_pruner.ops.sync import declared_sync

__all__ = ["grow"]

_TOKENS = 64  # whose rows stay in the cache while all that enter are compared with them; even


def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow`: [B, keep] order, [B, n] owner and similarity, without an [n, n] matrix.

    O(n q) time for every token kept, O(n) memory beyond the input.
    """
    with declared_sync():
        slopes = [rule.spatial_weight / d for d in diagonal.tolist()]
    images = [_alone(*image, keep, rule) for image in zip(unit, place, slopes, pivots, strict=True)]
    return Grown(*(torch.stack(parts) for parts in zip(*images, strict=True)))


def _alone(
    unit: Tensor, place: Tensor, slope: float, pivots: Tensor, keep: int, rule: GrowthRule
) -> tuple[Tensor, ...]:
    n = len(unit)
    order, owner, similarity = np.full(keep, -1), np.zeros(n, np.int64), np.full(n, -np.inf)
    near, score, axes = np.full(n, np.inf), np.empty(n), np.zeros((3, n))
    with declared_sync():
        axes[: place.shape[1]] = place.numpy().T
        rows, (stride,) = numbers(unit)
        members = np.ascontiguousarray(pivots.numpy())
    image = (rows, unit.shape[1], stride, axes, slope, np.float32(slack(unit.shape[1])))
    state = (order, owner, similarity, near, score)  # what `_add` brings up to date
    size, before, level = _add(image, members, 0, state), 0, -1
    ladder, members = rule.thresholds(), np.empty(min(n, rule.token_batch), np.int64)
    while size < keep and (rule.fill or size > before):
        before, level = size, level + 1
        if rule.fill:  # passes that would add nothing are skipped
            level = max(level, bisect_right(ladder, float(score.min())))
        threshold = ladder[min(level, len(ladder) - 1)]
        size, waiting = _one_pass(image, score.argsort(kind="stable"), threshold, members, size, state)
        if waiting:
            least = score[members[:waiting]].argsort(kind="stable")[: keep - size]
            size = _add(image, members[np.sort(least)], size, state)
    return tuple(torch.from_numpy(array) for array in (order, owner, np.float32(similarity)))


@compiled
def _one_pass(image, ranked, threshold, members, size, state):
    """Goes through the tokens outside in blocks; (the new size, how many `members` of the last block are too many)."""
    order, score = state[0], state[4]
    for start in range(0, len(ranked), len(members)):
        count = 0
        for token in ranked[start : start + len(members)]:
            if score[token] < threshold:
                members[count] = token
                count += 1
        if count > len(order) - size:
            return size, count
        if count:
            size = _add(image, members[:count], size, state)
        if size == len(order):
            break
    return size, 0


@compiled
def _add(image, members, size, state):
    """Appends `members` to the `size` tokens of `order` and brings the vectors [n] up to date; the new size."""
    place, slope = image[3], image[4]
    order, owner, similarity, near, score = state
    n = len(owner)
    order[size : size + len(members)] = members
    _compare(image, members, size, owner, similarity)
    for member in members:
        y, x, t = place[0, member], place[1, member], place[2, member]
        for i in range(n):
            dy, dx, dt = place[0, i] - y, place[1, i] - x, place[2, i] - t
            near[i] = min(near[i], dy * dy + dx * dx + dt * dt)
    for i in range(n):
        apart = np.sqrt(near[i]) if near[i] < np.inf else 0.0
        score[i] = similarity[i] * (1.0 + slope * apart)
    size += len(members)
    for token in order[:size]:
        score[token] = np.inf
    return size


@compiled
def _compare(image, members, size, owner, similarity):
    """Brings the largest cosines up to date with `members`, the first of which stands at place `size`."""
    rows, q, stride, _, _, off = image
    n = len(owner)
    best, second = np.full(n, -np.inf, np.float32), np.full(n, -np.inf, np.float32)  # in float32
    which = np.zeros(n, np.int64)
    _leaders(image, members, best, second, which)
    for i in range(n):
        if not best[i] > similarity[i] - off:
            continue
        own = rows[i * stride : i * stride + q]
        alone = second[i] < best[i] - 2 * off
        for m in range(which[i] if alone else 0, which[i] + 1 if alone else len(members)):
            at = members[m] * stride
            cosine = exact_dot(rows[at : at + q], own)
            if cosine > similarity[i]:
                similarity[i], owner[i] = cosine, size + m


@compiled
def _leaders(image, members, best, second, which):
    """Of each token the largest cosine to a member and the next one, in float32, and the member of the largest."""
    rows, q, stride = image[0], image[1], image[2]
    n, last = len(best), len(members) - 1
    for begin in range(0, n, _TOKENS):  # four members and two tokens at a time; too few are repeated
        for first in range(0, len(members), 4):
            at = members[first] * stride
            at1, at2 = members[min(first + 1, last)] * stride, members[min(first + 2, last)] * stride
            at3 = members[min(first + 3, last)] * stride
            m0, m1, m2, m3 = rows[at : at + q], rows[at1 : at1 + q], rows[at2 : at2 + q], rows[at3 : at3 + q]
            count = min(4, len(members) - first)
            if count <= 2:  # as most blocks have
                _two(image, members, begin, min(n, begin + _TOKENS), first, best, second, which)
                continue
            for pair in range(begin, min(n, begin + _TOKENS), 2):
                i, j = pair, min(pair + 1, n - 1)
                x, y = rows[i * stride : i * stride + q], rows[j * stride : j * stride + q]
                a0, a1, a2, a3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                b0, b1, b2, b3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for c in range(q):
                    a0 += m0[c] * x[c]
                    a1 += m1[c] * x[c]
                    a2 += m2[c] * x[c]
                    a3 += m3[c] * x[c]
                    b0 += m0[c] * y[c]
                    b1 += m1[c] * y[c]
                    b2 += m2[c] * y[c]
                    b3 += m3[c] * y[c]
                _lead(best, second, which, i, first, count, a0, a1, a2, a3)
                if j > i:
                    _lead(best, second, which, j, first, count, b0, b1, b2, b3)


@compiled
def _two(image, members, begin, end, first, best, second, which):
    """One or two members and four tokens at a time."""
    rows, q, stride = image[0], image[1], image[2]
    at, at1, count = members[first] * stride, members[-1] * stride, len(members) - first
    m0, m1 = rows[at : at + q], rows[at1 : at1 + q]
    for four in range(begin, end, 4):
        i, j, k, o = four, min(four + 1, end - 1), min(four + 2, end - 1), min(four + 3, end - 1)
        x, y = rows[i * stride : i * stride + q], rows[j * stride : j * stride + q]
        z, w = rows[k * stride : k * stride + q], rows[o * stride : o * stride + q]
        a0, a1, a2, a3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        b0, b1, b2, b3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for c in range(q):
            a0 += m0[c] * x[c]
            a1 += m0[c] * y[c]
            a2 += m0[c] * z[c]
            a3 += m0[c] * w[c]
            b0 += m1[c] * x[c]
            b1 += m1[c] * y[c]
            b2 += m1[c] * z[c]
            b3 += m1[c] * w[c]
        none = np.float32(-np.inf)
        _lead(best, second, which, i, first, count, a0, b0, none, none)
        if j > i:
            _lead(best, second, which, j, first, count, a1, b1, none, none)
        if k > j:
            _lead(best, second, which, k, first, count, a2, b2, none, none)
        if o > k:
            _lead(best, second, which, o, first, count, a3, b3, none, none)


@compiled
def _lead(best, second, which, token, slot, count, c0, c1, c2, c3):
    """Up to four more cosines of a token."""
    one, two, at = best[token], second[token], which[token]
    if c0 > one:
        one, two, at = c0, one, slot
    elif c0 > two:
        two = c0
    if count > 1:
        if c1 > one:
            one, two, at = c1, one, slot + 1
        elif c1 > two:
            two = c1
    if count > 2:
        if c2 > one:
            one, two, at = c2, one, slot + 2
        elif c2 > two:
            two = c2
    if count > 3:
        if c3 > one:
            one, two, at = c3, one, slot + 3
        elif c3 > two:
            two = c3
    best[token], second[token], which[token] = one, two, at
