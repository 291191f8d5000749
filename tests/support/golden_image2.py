"""Golden cases of the image methods of 2026: what their released code keeps, in float32, on inputs rebuilt from a seed.

    for case in cases("hawk"):
        tensors = build(case)      # torch tensors by name

`tests/golden/expected_image2.json` holds numbers only, in the form that `tests/support/golden.py` describes. Every case
is decided: noise of one unit in the last place changes neither the kept set nor a count. Images are uint8 [height,
width, 3], everything else is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tests.support.golden import field, softmax
from tests.support.golden_cases import Array, Case, Cases, check_sums

_CASES = Cases("expected_image2.json")
methods, cases = _CASES.methods, _CASES.of
_SQUARE = {"screen": 8, "plain": 8, "photo": 28}  # pixels along the side of a token


def build(case: Case) -> dict[str, Any]:
    """The tensors of one case by name; `start` (where the image begins) stays an int.

    Raises:
        AssertionError: a checksum differs, i.e. NumPy's random stream has changed.
    """
    rng = np.random.default_rng(case["seed"])
    arrays = _RECIPES[case["recipe"]](rng, *case["grid"], case)
    check_sums(case, arrays)
    return {k: v if isinstance(v, int) else torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}


def squares(image: torch.Tensor, case: Case) -> torch.Tensor:
    """[rows, columns, pixels, 3] the pixels of every token of `image`, in the image's dtype."""
    (rows, cols), side = case["grid"], _SQUARE[case["recipe"]]
    return image.view(rows, side, cols, side, 3).transpose(1, 2).reshape(rows, cols, side * side, 3)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    drawn: Array = rng.standard_normal(shape).astype(np.float32)
    return drawn


def _box(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> tuple[slice, slice]:
    """A rectangle inside an image [height, width, 3], its sides between `low` and the border."""
    top = int(rng.integers(0, shape[0] - low))
    bottom = top + int(rng.integers(low, high))
    left = int(rng.integers(0, shape[1] - low))
    return slice(top, bottom), slice(left, left + int(rng.integers(low, high)))


def _screen(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """A flat background, boxes, a slow ramp, boxes with weak noise, dots like writing."""
    side = _SQUARE["screen"]
    image = np.empty((rows * side, cols * side, 3), np.int64)
    image[:] = rng.integers(200, 250, 3)
    for _ in range(7):
        image[_box(rng, image.shape, side, 6 * side)] = rng.integers(0, 256, 3)
    ramp = _box(rng, image.shape, 3 * side, 8 * side)
    image[ramp] = 90 + (np.arange(image[ramp].shape[1]) // side)[None, :, None]
    for strength in (1, 2, 4):
        noisy = _box(rng, image.shape, 2 * side, 6 * side)
        image[noisy] += rng.integers(-strength, strength + 1, image[noisy].shape)
    for _ in range(5):
        dotted = _box(rng, image.shape, 2, 5 * side)
        image[dotted] = np.where(rng.random(image[dotted].shape[:2])[..., None] < 0.3, 20, image[dotted])
    return {"image": np.clip(image, 0, 255).astype(np.uint8)}


def _plain(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    side = _SQUARE["plain"]
    return {"image": np.full((rows * side, cols * side, 3), rng.integers(0, 256), np.uint8)}


def _photo(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Texture of varying contrast; no pixel where 299 R + 587 G + 114 B is a multiple of 1000."""
    side, contrast, waves = _SQUARE["photo"], case.get("contrast", 30), case.get("waves", 2)
    y, x = np.mgrid[0 : rows * side, 0 : cols * side]
    phase = rng.uniform(0, 6)
    base = 120 + waves * np.sin(x / (9 * side / 2 / np.pi) + phase) * np.cos(y / (7 * side / 2 / np.pi))
    local = contrast * np.kron(rng.uniform(0.02, 1.0, (rows, cols)) ** 2, np.ones((side, side)))
    noise = rng.standard_normal((rows * side, cols * side, 3))
    image = np.clip(np.rint(base[..., None] + [10, 0, -10] + local[..., None] * noise), 1, 253).astype(np.int64)
    image[..., 2] += image @ np.array([299, 587, 114]) % 1000 == 0
    return {"image": image.astype(np.uint8)}


def _heads(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Queries of the text and keys of the image, not rotated; four heads of queries share one of keys."""
    keys = field(rng, rows, cols, 64, noise=0.6).reshape(-1, 2, 32).transpose(1, 0, 2)
    queries = _normal(rng, 8, 11, 32)
    return {"queries": queries, "keys": keys, "weights": (rng.random(8) ** 2).astype(np.float32)}


def _text_rows(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Attention [heads, t, start + n + t] of the rows after the image."""
    start, tail, heads, n = 7, 20, 6, rows * cols
    logits = rng.standard_normal((heads, tail, start + n + tail))
    logits[:, :, start : start + n] += field(rng, rows, cols, heads, noise=0.2).T[:, None]
    logits *= case.get("sharp", 1.5)
    logits[:, :, start + n :][:, np.triu(np.ones((tail, tail), bool), 1)] = -np.inf
    return {"attention": softmax(logits.astype(np.float32)), "start": start}


def _vision_cls(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Rows of the vision tower, CLS first; attention [8, n] of the CLS row."""
    hidden = np.concatenate([_normal(rng, 1, 192), field(rng, rows, cols, 192, blobs=24)])
    return {"hidden": hidden, "attention": softmax(_normal(rng, 8, rows * cols) * 2)}


def _values(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Values [4, length, 32] of one layer and its rotary tables [length, 64], the image at `start`."""
    start, tail, n = case.get("start", 5), 24, rows * cols
    before = rng.standard_normal((start, 128))
    image = field(rng, rows, cols, 128, noise=0.6)
    states = np.concatenate([before, image, rng.standard_normal((tail, 128))]).astype(np.float32)
    angle = np.arange(start + n + tail)[:, None] * 10000.0 ** (-np.arange(0, 64, 2) / 64)
    angle = np.concatenate([angle, angle], 1)
    tables = {"cos": np.cos(angle).astype(np.float32), "sin": np.sin(angle).astype(np.float32)}
    return {"values": states.reshape(-1, 4, 32).transpose(1, 0, 2), **tables, "start": start}


def _tower_states(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Rows that enter two tower layers, one after the other, and rows as the last layer leaves them."""
    before = field(rng, rows, cols, 192, blobs=16)
    after = before + 0.3 * field(rng, rows, cols, 192, blobs=30, bias=0.2)
    last = (after + rng.standard_normal(after.shape)).astype(np.float32)
    return {"before": before, "after": after.astype(np.float32), "last": last}


def _spectrum(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Image rows that enter decoder layers 0 and 1, attention [6, n] of the last row."""
    first = field(rng, rows, cols, 192)
    second = first + 0.5 * field(rng, rows, cols, 192, blobs=40, noise=0.8)
    attention = softmax(_normal(rng, 6, rows * cols) * 1.5)
    return {"first": first, "second": second.astype(np.float32), "attention": attention}


def _features(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    return {"features": field(rng, rows, cols, 320)}


def _two_scans(rng: np.random.Generator, rows: int, cols: int, case: Case) -> dict[str, Any]:
    """Attention [8, n] in a shallow and in a deep tower layer, and the projector's output."""
    shallow, deep = (softmax(_normal(rng, 8, rows * cols) * 2) for _ in range(2))
    return {"shallow": shallow, "deep": deep, "features": field(rng, rows, cols, 192)}


_RECIPES: dict[str, Callable[[np.random.Generator, int, int, Case], dict[str, Any]]] = {
    "screen": _screen,
    "plain": _plain,
    "photo": _photo,
    "heads": _heads,
    "text_rows": _text_rows,
    "vision_cls2": _vision_cls,
    "values": _values,
    "tower_states": _tower_states,
    "spectrum": _spectrum,
    "features": _features,
    "two_scans": _two_scans,
}
