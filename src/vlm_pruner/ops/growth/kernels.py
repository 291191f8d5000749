"""What the programs of the growth are made of.

An image is a tuple (unit rows, their two strides, places, slope); its tiles of tokens go round the programs of its
crew, and what one of them stored is loaded by others only after a meeting. All of them go through the same steps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vlm_pruner.ops.launch import meet

__all__ = ["begin_with", "fits_in", "following", "hand_over", "order_of", "redundancy", "take_in"]

_MEMBERS = tl.constexpr(16)  # kept tokens compared at a time, the least that a product of tiles can have


@triton.jit
def _rows(image, token, real, channel, q):
    """[tokens, channels] unit rows in float64."""
    address = token.to(tl.int64)[:, None] * image[1] + channel[None, :] * image[2]
    return tl.load(image[0] + address, mask=real[:, None] & (channel < q)[None, :], other=0.0).to(tl.float64)


@triton.jit
def _cosines(image, one, one_real, other, other_real, q, A: tl.constexpr, B: tl.constexpr, CHANNELS: tl.constexpr):
    """[A, B] cosines of two sets of tokens; of rows on a grid exactly."""
    total = tl.zeros((A, B), tl.float64)
    for start in range(0, q, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        left = _rows(image, one, one_real, channel, q)
        right = _rows(image, other, other_real, channel, q)
        total = tl.dot(left, tl.trans(right), total, input_precision="ieee", out_dtype=tl.float64)
    return total


@triton.jit
def _apart(image, one, one_real, other, other_real, axes, A: tl.constexpr, B: tl.constexpr):
    """[A, B] distances of two sets of tokens; infinite where one has no place."""
    total = tl.zeros((A, B), tl.float64)
    for axis in range(axes):
        left = tl.load(image[3] + one.to(tl.int64) * axes + axis, mask=one_real, other=0.0)
        right = tl.load(image[3] + other.to(tl.int64) * axes + axis, mask=other_real, other=0.0)
        step = left.to(tl.float64)[:, None] - right.to(tl.float64)[None, :]
        total += step * step
    return tl.where(total == total, tl.sqrt(total), float("inf"))


@triton.jit
def _score(image, similarity, near):
    """Redundancy from the largest cosine and the least distance to the kept tokens."""
    return similarity * (1 + image[4] * tl.where(near == float("inf"), 0.0, near))


@triton.jit
def begin_with(pivots, count, vectors, inside, order, n, keep, TILE: tl.constexpr):
    """The state before anything is taken in: `order` is the pivots, then -1. All know of it after the next meeting."""
    for start in range(tl.program_id(1) * TILE, n, tl.num_programs(1) * TILE):
        token = start + tl.arange(0, TILE)
        kept = tl.zeros((TILE,), tl.int32)
        for i in range(count):
            kept = tl.where(token == tl.load(pivots + i), 1, kept)
        tl.store(inside + token, kept, mask=token < n)
        tl.store(vectors[0] + token, tl.zeros((TILE,), tl.int64), mask=token < n)
        tl.store(vectors[1] + token, tl.full((TILE,), float("-inf"), tl.float64), mask=token < n)
        tl.store(vectors[2] + token, tl.full((TILE,), float("inf"), tl.float64), mask=token < n)
    for start in range(tl.program_id(1) * TILE, keep, tl.num_programs(1) * TILE):
        place = start + tl.arange(0, TILE)
        tl.store(order + place, tl.load(pivots + place, mask=place < count, other=-1), mask=place < keep)


@triton.jit
def take_in(
    image, vectors, sizes, order, first, count, arrivals, rounds,
    TILE: tl.constexpr, CHANNELS: tl.constexpr, ALONE: tl.constexpr,
):  # fmt: skip
    """Bring the running vectors of all tokens up to date with the `count` tokens of `order` from `first` on.

    Nobody begins before all have read the vectors as they were, nobody goes on before all have finished: two meetings,
    whose number is returned.
    """
    meet(arrivals, rounds + 1, ALONE)
    for start in range(tl.program_id(1) * TILE, sizes[0], tl.num_programs(1) * TILE):
        token = start + tl.arange(0, TILE)
        real = token < sizes[0]
        owner = tl.load(vectors[0] + token, mask=real, other=0)
        similarity = tl.load(vectors[1] + token, mask=real, other=0.0)
        near = tl.load(vectors[2] + token, mask=real, other=0.0)
        for group in range(0, count, _MEMBERS):
            lane = group + tl.arange(0, _MEMBERS)
            kept = lane < count
            member = tl.load(order + first + lane, mask=kept, other=0)
            cosine = _cosines(image, member, kept, token, real, sizes[1], _MEMBERS, TILE, CHANNELS)
            cosine = tl.where(kept[:, None], cosine, float("-inf"))
            best = tl.max(cosine, 0)
            which = first + group + tl.argmax(cosine, 0)
            owner = tl.where(best > similarity, which.to(tl.int64), owner)
            similarity = tl.maximum(similarity, best)
            apart = _apart(image, member, kept, token, real, sizes[2], _MEMBERS, TILE)
            near = tl.minimum(near, tl.min(tl.where(kept[:, None], apart, float("inf")), 0))
        tl.store(vectors[0] + token, owner, mask=real)
        tl.store(vectors[1] + token, similarity, mask=real)
        tl.store(vectors[2] + token, near, mask=real)
    meet(arrivals, rounds + 2, ALONE)
    return rounds + 2


@triton.jit
def hand_over(similarity, answer, n, TILE: tl.constexpr):
    """The running similarity in the dtype of the answer; every program copies the tiles that it wrote itself."""
    for start in range(tl.program_id(1) * TILE, n, tl.num_programs(1) * TILE):
        token = start + tl.arange(0, TILE)
        tl.store(answer + token, tl.load(similarity + token, mask=token < n).to(tl.float32), mask=token < n)


@triton.jit
def redundancy(image, vectors, sizes, order, block, real, first, count, WIDTH: tl.constexpr, CHANNELS: tl.constexpr):
    """[WIDTH] redundancy of the tokens `block`, those of `order` from `first` on included."""
    similarity = tl.load(vectors[1] + block, mask=real, other=0.0)
    near = tl.load(vectors[2] + block, mask=real, other=0.0)
    for group in range(0, count, _MEMBERS):
        lane = group + tl.arange(0, _MEMBERS)
        kept = lane < count
        member = tl.load(order + first + lane, mask=kept, other=0)
        cosine = _cosines(image, block, real, member, kept, sizes[1], WIDTH, _MEMBERS, CHANNELS)
        similarity = tl.maximum(similarity, tl.max(tl.where(kept[None, :], cosine, float("-inf")), 1))
        apart = _apart(image, block, real, member, kept, sizes[2], WIDTH, _MEMBERS)
        near = tl.minimum(near, tl.min(tl.where(kept[None, :], apart, float("inf")), 1))
    return _score(image, similarity, near)


@triton.jit
def fits_in(score, fits, room, lane):
    """Those of the tokens that `fits` for whom there is room, the least redundant first (ties: the earlier lane)."""
    tie = (score[None, :] == score[:, None]) & (lane[None, :] < lane[:, None])
    ahead = fits[None, :] & ((score[None, :] < score[:, None]) | tie)
    return fits & (tl.sum(ahead.to(tl.int32), 1) < room)


@triton.jit
def following(
    image, vectors, ranked, threshold, begin, outside, width, slots, arrivals, rounds,
    TILE: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """(where the next block with a token below the threshold begins, at `begin` or after it, else `outside`; meetings).

    The slots are free again at the next meeting, of which `take_in` has two before anybody comes back here.
    """
    found = outside
    start = begin + tl.program_id(1) * TILE
    while (start < outside) & (found == outside):
        place = start + tl.arange(0, TILE)
        real = place < outside
        token = tl.load(ranked + place, mask=real, other=0)
        similarity = tl.load(vectors[1] + token, mask=real, other=float("inf"))
        near = tl.load(vectors[2] + token, mask=real, other=0.0)
        below = real & (_score(image, similarity, near) < threshold)
        found = tl.min(tl.where(below, place, outside), 0)
        start += tl.num_programs(1) * TILE
    if SLOTS > 1:
        tl.store(slots + tl.program_id(1), found)
        meet(arrivals, rounds + 1, False)
        lane = tl.arange(0, SLOTS)
        found = tl.min(tl.load(slots + lane, mask=lane < tl.num_programs(1), other=0x7FFFFFFF), 0)
    return tl.where(found == outside, outside, begin + (found - begin) // width * width), rounds + 1


@triton.jit
def order_of(
    image, vectors, inside, score, ranked, n, arrivals, rounds,
    TILE: tl.constexpr, RIVALS: tl.constexpr, ALONE: tl.constexpr,
):  # fmt: skip
    """(least redundancy, meetings); `ranked` becomes the tokens outside by redundancy, then index, then those inside.

    The place of a token is the number of those before it, counted: it takes no sorting network, and any n will do.
    """
    for start in range(tl.program_id(1) * TILE, n, tl.num_programs(1) * TILE):
        token = start + tl.arange(0, TILE)
        real = token < n
        similarity = tl.load(vectors[1] + token, mask=real, other=0.0)
        near = tl.load(vectors[2] + token, mask=real, other=0.0)
        kept = tl.load(inside + token, mask=real, other=1)
        tl.store(score + token, tl.where(kept == 0, _score(image, similarity, near), float("inf")), mask=real)
    meet(arrivals, rounds + 1, ALONE)
    for start in range(tl.program_id(1) * TILE, n, tl.num_programs(1) * TILE):
        token = start + tl.arange(0, TILE)
        own = tl.load(score + token, mask=token < n, other=float("inf"))
        place = tl.zeros((TILE,), tl.int32)
        for begin in range(0, n, RIVALS):
            rival = begin + tl.arange(0, RIVALS)
            other = tl.load(score + rival, mask=rival < n, other=float("inf"))
            tie = (other[None, :] == own[:, None]) & (rival[None, :] < token[:, None])
            place += tl.sum(((other[None, :] < own[:, None]) | tie).to(tl.int32), 1)
        tl.store(ranked + place, token, mask=token < n)
    meet(arrivals, rounds + 2, ALONE)
    return tl.load(score + tl.load(ranked)), rounds + 2
