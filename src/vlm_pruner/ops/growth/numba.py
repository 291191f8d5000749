"""The growth as loops that compare a token with a kept one only where that may turn out to be its most similar one.

Angles tell where not: with x the angle between a token and its owner, and y that to the most similar kept token so far,
what is farther than x + y from the owner is farther than y from the token. So cosines among kept tokens are computed,
and most others are not. A token is compared only when its redundancy is needed: where it may enter, at the end of a
pass, and when so many have entered that their rows no longer stay in the cache.

This is in float32, whose rounding is known. A cosine that may be the largest is computed again in float64, exactly, and
nothing else is compared.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlm_pruner.ops.growth import Grown
from vlm_pruner.ops.growth.rule import GrowthRule
from vlm_pruner.ops.loops import compiled, exact_dot, inlined, numbers, slack
from vlm_pruner.ops.sync import declared_sync

__all__ = ["grow"]

_WAITING = 256  # kept tokens that others need not have been compared with
_STRIP = 16  # kept tokens of which the cosine nearest to each other one is known
_CACHED = 512  # tokens whose coordinates stay in the cache

Array = NDArray[Any]


class _Image(NamedTuple):
    """n tokens with q channels; where float32 may be `off`."""

    rows: Array
    stride: int
    place: Array  # [3, n]
    slope: float
    off: Any


class _State(NamedTuple):
    """What changes. Columns begin with the first kept token that some have not been compared with."""

    order: Array  # [keep]
    owner: Array  # [n]
    similarity: Array  # [n] exact, to the `seen` first kept tokens
    near: Array  # [n] squared distance to the nearest kept token
    score: Array  # [n] the redundancy, or what it was when it was last needed; infinite of a kept token
    seen: Array  # [n]
    kept: Array  # [keep, q] float32, the rows of kept tokens
    between: Array  # [keep, columns] float32, cosines of kept tokens to those that came later
    most: Array  # [keep, strips] the largest of them in each strip
    slots: Array  # [columns] room for those that two tokens are compared with
    cosines: Array  # [2, columns] float32, and for what that gives


def grow(unit: Tensor, place: Tensor, diagonal: Tensor, pivots: Tensor, keep: int, rule: GrowthRule) -> Grown:
    """`vlm_pruner.ops.growth.grow`: [B, keep] order, [B, n] owner and similarity, without an [n, n] matrix.

    At most O(n q) time for every token kept, O(n + keep q) memory beyond the input.
    """
    with declared_sync():
        slopes = [rule.spatial_weight / d for d in diagonal.tolist()]
    images = [_alone(*image, keep, rule) for image in zip(unit, place, slopes, pivots, strict=True)]
    return Grown(*(torch.stack(parts) for parts in zip(*images, strict=True)))


def _alone(
    unit: Tensor, place: Tensor, slope: float, pivots: Tensor, keep: int, rule: GrowthRule
) -> tuple[Tensor, ...]:
    (n, q), width = unit.shape, min(len(unit), rule.token_batch)
    axes, every = np.zeros((3, n)), np.arange(n)
    with declared_sync():
        axes[: place.shape[1]] = place.numpy().T
        rows, (stride,) = numbers(unit)
        members = np.ascontiguousarray(pivots.numpy())
    image = _Image(rows, stride, axes, slope, np.float32(slack(q)))
    state = _begun(n, q, keep, min(keep, _WAITING + max(width, len(members))))
    sizes, before, level, ladder = _add(image, members, (0, 0), state), 0, -1, rule.thresholds()
    members = np.empty(width, np.int64)
    while sizes[0] < keep and (rule.fill or sizes[0] > before):
        sizes = _settle(image, every, sizes, state)
        before, level = sizes[0], level + 1
        if rule.fill:  # passes that would add nothing are skipped
            level = max(level, bisect_right(ladder, float(state.score.min())))
        threshold, ranked = ladder[min(level, len(ladder) - 1)], state.score.argsort(kind="stable")
        sizes, waiting = _one_pass(image, every, ranked, threshold, members, sizes, state)
        if waiting:
            least = state.score[members[:waiting]].argsort(kind="stable")[: keep - sizes[0]]
            sizes = _add(image, members[np.sort(least)], sizes, state)
    _settle(image, every, sizes, state)
    return tuple(torch.from_numpy(array) for array in (state.order, state.owner, np.float32(state.similarity)))


def _begun(n: int, q: int, keep: int, columns: int) -> _State:
    def room(*shape: int, dtype: torch.dtype = torch.float32) -> Array:
        """Memory of torch begins where a line of the cache does: NumPy's need not, and then a load reads two."""
        with declared_sync():
            return torch.empty(shape, dtype=dtype, device="cpu").numpy()

    return _State(
        order=np.full(keep, -1),
        owner=np.zeros(n, np.int64),
        similarity=np.full(n, -np.inf),
        near=np.full(n, np.inf),
        score=np.zeros(n),
        seen=np.zeros(n, np.int64),
        kept=room(keep, q),
        between=room(keep, columns),
        most=room(keep, columns // _STRIP + 1),
        slots=room(columns, dtype=torch.int64),
        cosines=room(2, columns),
    )


@compiled
def _one_pass(image, every, ranked, threshold, members, sizes, state):
    """Goes through the tokens outside in blocks; (the new sizes, how many `members` of the last block are too many)."""
    keep = len(state.order)
    for start in range(0, len(ranked), len(members)):
        count = _below(image, ranked[start : start + len(members)], threshold, members, state)
        _compare(image, members[:count], sizes, state)
        count = _below(image, members[:count], threshold, members, state)
        if count > keep - sizes[0]:
            return sizes, count
        if count:
            sizes = _add(image, members[:count], sizes, state)
            if sizes[0] - sizes[1] >= min(_WAITING, max(sizes[1], _STRIP)):
                sizes = _settle(image, every, sizes, state)
        if sizes[0] == keep:
            break
    return sizes, 0


@compiled
def _below(image, tokens, threshold, below, state):
    """How many of `tokens` are outside and may be below the threshold; those become the first of `below`.

    The similarity to some of the kept tokens, at the distance to all, gives the least that a redundancy may be.
    """
    count = 0
    for token in tokens:
        if state.score[token] < np.inf:
            state.score[token] = _redundancy(image, token, state)
            if state.score[token] < threshold:
                below[count] = token
                count += 1
    return count


@inlined
def _redundancy(image, token, state):
    apart = np.sqrt(state.near[token]) if state.near[token] < np.inf else 0.0
    return state.similarity[token] * (1.0 + image.slope * apart)


@compiled
def _settle(image, every, sizes, state):
    """Brings all tokens and their redundancies up to date; the sizes, of which none is waiting."""
    _compare(image, every, sizes, state)
    for token in every:
        state.score[token] = _redundancy(image, token, state)
    for token in state.order[: sizes[0]]:
        state.score[token] = np.inf
    return sizes[0], sizes[0]


@compiled
def _add(image, members, sizes, state):
    """Appends `members` to `order`, and brings distances and cosines among kept tokens up to date; the new sizes.

    Sizes are how many are kept, and how many of these all tokens have been compared with.
    """
    kept, n, (size, settled) = state.kept, len(state.near), sizes
    end = size + len(members)
    for begin in range(0, n, _CACHED):
        stop = min(n, begin + _CACHED)
        ys, xs, ts = image.place[0, begin:stop], image.place[1, begin:stop], image.place[2, begin:stop]
        near = state.near[begin:stop]
        for member in members:
            y, x, t = image.place[0, member], image.place[1, member], image.place[2, member]
            for i in range(len(near)):
                dy, dx, dt = ys[i] - y, xs[i] - x, ts[i] - t
                near[i] = min(near[i], dy * dy + dx * dx + dt * dt)
    for slot in range(size, end):
        member = members[slot - size]
        state.order[slot], state.score[member] = member, np.inf
        kept[slot] = image.rows[member * image.stride : member * image.stride + kept.shape[1]]
        if (slot - settled) % _STRIP == 0:
            state.most[:, (slot - settled) // _STRIP] = -np.inf
    for o in range(0, end, 4):
        four = o, min(o + 1, end - 1), min(o + 2, end - 1), min(o + 3, end - 1)
        for one in range(max(o, size), end, 2):
            pair = one, min(one + 1, end - 1)
            found = _products(kept, four[0], four[1], four[2], four[3], kept[pair[0]], kept[pair[1]])
            for k in range(8):
                row, column = four[k % 4], pair[k // 4] - settled
                state.between[row, column] = found[k]
                state.most[row, column // _STRIP] = max(state.most[row, column // _STRIP], found[k])
    return end, settled


@compiled
def _compare(image, tokens, sizes, state):
    """Brings the largest cosines of tokens up to date with all kept tokens.

    Two tokens at a time, which costs half the reading: a kept token that may be the most similar one of either is
    compared with both, and neighbours are alike.
    """
    (size, settled), q, off = sizes, state.kept.shape[1], image.off
    slots, cosines = state.slots, state.cosines
    for start in range(0, len(tokens), 2):
        i, j = tokens[start], tokens[min(start + 1, len(tokens) - 1)]
        x = image.rows[i * image.stride : i * image.stride + q]
        y = image.rows[j * image.stride : j * image.stride + q]
        best_i, best_j = np.float32(state.similarity[i]) - off, np.float32(state.similarity[j]) - off
        least_i, least_j = _least(state, i, best_i, off), _least(state, j, best_j, off)
        count, looked, end = 0, 0, min(state.seen[i], state.seen[j])
        while end < size:
            begin, strip = end, (end - settled) // _STRIP
            end = min(size, settled + (strip + 1) * _STRIP)
            if state.most[state.owner[i], strip] > least_i or state.most[state.owner[j], strip] > least_j:
                beside_i = state.between[state.owner[i], begin - settled : end - settled]
                beside_j = state.between[state.owner[j], begin - settled : end - settled]
                for k in range(len(beside_i)):
                    if beside_i[k] > least_i or beside_j[k] > least_j:
                        slots[count] = begin + k
                        count += 1
            before_i, before_j, enough = best_i, best_j, 4 if end < size else 1
            while count >= looked + enough:
                a, b, c, d = looked, min(looked + 1, count - 1), min(looked + 2, count - 1), min(looked + 3, count - 1)
                found = _products(state.kept, slots[a], slots[b], slots[c], slots[d], x, y)
                cosines[0, a], cosines[0, b], cosines[0, c], cosines[0, d] = found[:4]
                cosines[1, a], cosines[1, b], cosines[1, c], cosines[1, d] = found[4:]
                best_i = max(best_i, found[0], found[1], found[2], found[3])
                best_j = max(best_j, found[4], found[5], found[6], found[7])
                looked = d + 1
            if best_i > before_i:
                least_i = _least(state, i, best_i, off)
            if best_j > before_j:
                least_j = _least(state, j, best_j, off)
        _decide(state, i, x, slots[:count], cosines[0], best_i - 2 * off)
        _decide(state, j, y, slots[:count], cosines[1], best_j - 2 * off)
        state.seen[i], state.seen[j] = size, size


@inlined
def _decide(state, token, own, slots, cosines, doubtful):
    """The most similar one of some kept tokens becomes the owner: of those that may be, by exact cosines."""
    for m in range(len(slots)):
        if cosines[m] >= doubtful:
            cosine = exact_dot(state.kept[slots[m]], own)
            if cosine > state.similarity[token]:
                state.similarity[token], state.owner[token] = cosine, slots[m]


@inlined
def _products(kept, a, b, c, d, x, y):
    """Of two rows with four kept ones."""
    row0, row1, row2, row3 = kept[a], kept[b], kept[c], kept[d]
    x0, x1, x2, x3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    y0, y1, y2, y3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for k in range(len(x)):
        x0 += x[k] * row0[k]
        x1 += x[k] * row1[k]
        x2 += x[k] * row2[k]
        x3 += x[k] * row3[k]
        y0 += y[k] * row0[k]
        y1 += y[k] * row1[k]
        y2 += y[k] * row2[k]
        y3 += y[k] * row3[k]
    return x0, x1, x2, x3, y0, y1, y2, y3


@inlined
def _least(state, token, best, off):
    """The cosine of a kept token to a token's owner up to which it is less similar to the token than `best`.

    The cosine of the sum of both angles, each taken a little too large, less what float32 may be off.
    """
    one, other, least = state.similarity[token] - 2 * off, best - 5 * off, -np.inf
    if one >= 0 and other >= 0:  # else the sum may be more than half a turn
        least = one * other - np.sqrt((1 - one * one) * (1 - other * other)) - 2 * off
    return np.float32(least)
