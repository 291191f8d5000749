"""Golden video cases: what the methods' own released code keeps, in float32, on inputs rebuilt here from a seed.

    for case in cases("vidcom2"):
        tokens = build(case)     # VisualTokens: features, grid, and attention where the case has it

`tests/golden/expected_video.json` holds numbers only; as in `golden.py`, every tensor has a checksum. Fields: `recipe`,
`seed`, `grid` (t, h, w; tokens in raster order), `retention` (share asked for), `params` (what differs from the
method's defaults), `keep` (what the released code kept, not always the budget), and `expected` with `kept`
(ascending), `per_frame`, and for merging `merged_row_sum` / `merged_row_sqsum` of each kept row.
"""

from __future__ import annotations

import numpy as np
import torch
from tests.support.golden_cases import Array, Case, Cases, check_sums
from torch import Tensor

from vlm_pruner.types import VisionSignals, VisualTokens

_CASES = Cases("expected_video.json")
methods, cases = _CASES.methods, _CASES.of


def case_id(case: Case) -> str:
    """A readable name for pytest."""
    t, h, w = case["grid"]
    return f"{case['recipe'].removeprefix('video_')}-{t}x{h}x{w}-keep{case['keep']}-seed{case['seed']}"


def build(case: Case) -> VisualTokens:
    """The tokens of one case, float32; the attention of the tower where the case has it, 1 in each frame.

    Raises:
        AssertionError: a checksum differs, i.e. NumPy's random stream has changed.
    """
    rng = np.random.default_rng(case["seed"])
    grid = (t, h, w) = tuple(case["grid"])
    features, salient = _RECIPES[case["recipe"]](rng, t, h, w, case.get("width", 256))
    features = features * np.exp(0.5 * rng.standard_normal(features.shape[-1]))
    arrays = {"features": features.reshape(t * h * w, -1).astype(np.float32)}
    if case.get("attention"):
        score = 1.2 * rng.standard_normal((t, h * w)) + 1.5 * salient
        weight = np.exp(score - score.max(1, keepdims=True))
        arrays["attention"] = (weight / weight.sum(1, keepdims=True)).reshape(-1).astype(np.float32)
    assert arrays.keys() == case["checksums"].keys()
    check_sums(case, arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    vision = VisionSignals(attention=tensors["attention"][None]) if "attention" in tensors else None
    return VisualTokens(tensors["features"], grid=grid, vision=vision)


def check_rows(case: Case, rows: Tensor) -> None:
    """Merged `rows` [k, d] are those of the released code, within its float32 arithmetic."""
    for power, name, tolerance in ((1, "merged_row_sum", 0.02), (2, "merged_row_sqsum", 0.2)):
        found = rows.double().pow(power).sum(1)
        expected = torch.tensor(case["expected"][name], dtype=torch.float64)
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def _picture(rng: np.random.Generator, rows: int, cols: int, width: int) -> Array:
    """One still picture [rows*cols, width]: blob prototypes, a shared direction and white noise."""
    points = _points(rows, cols)
    centres, scales = rng.random((10, 2)), rng.uniform(0.05, 0.3, 10)
    weights = np.exp(-((points[:, None] - centres[None]) ** 2).sum(-1) / (2 * scales**2)) + 1e-3
    weights /= weights.sum(1, keepdims=True)
    features = weights @ rng.standard_normal((10, width)) + 0.6 * rng.standard_normal(width)
    noisy: Array = features + 0.35 * rng.standard_normal((rows * cols, width))
    return noisy


def _points(rows: int, cols: int) -> Array:
    y, x = np.mgrid[0:rows, 0:cols]
    return np.stack([y.ravel() / rows, x.ravel() / cols], 1)


def _static(
    rng: np.random.Generator, frames: int, rows: int, cols: int, width: int, flicker: float = 0.12
) -> tuple[Array, Array]:
    """A static background under flicker, and one blob that crosses it: features and the blob's weight, per frame."""
    points, ground, body = _points(rows, cols), _picture(rng, rows, cols, width), 1.4 * rng.standard_normal(width)
    begin, end = rng.random(2), rng.random(2)
    features, seen = [], []
    for t in range(frames):
        centre = begin + (end - begin) * (t / max(frames - 1, 1))
        blob = np.exp(-((points - centre) ** 2).sum(1) / (2 * 0.16**2))[:, None]
        moving = body + 0.5 * rng.standard_normal((rows * cols, width))
        features.append((1 - blob) * ground + blob * moving + flicker * rng.standard_normal((rows * cols, width)))
        seen.append(blob[:, 0])
    return np.stack(features), np.stack(seen)


def scene_cuts(rng: np.random.Generator, frames: int, rows: int, cols: int, width: int) -> tuple[Array, Array]:
    """A new shot every three to five frames."""
    shots, left = [], frames
    while left:
        length = min(left, int(rng.integers(3, 6)))
        shots.append(_static(rng, length, rows, cols, width, flicker=float(rng.uniform(0.05, 0.25))))
        left -= length
    return np.concatenate([s[0] for s in shots]), np.concatenate([s[1] for s in shots])


def _noise(rng: np.random.Generator, frames: int, rows: int, cols: int, width: int) -> tuple[Array, Array]:
    """Independent tokens; frames and tokens have different lengths."""
    n = rows * cols
    x = rng.standard_normal((frames, n, width)) * np.exp(0.3 * rng.standard_normal((frames, n, 1)))
    return x + 0.3 * rng.standard_normal((frames, 1, width)), np.zeros((frames, n))


def _constant(rng: np.random.Generator, frames: int, rows: int, cols: int, width: int) -> tuple[Array, Array]:
    """Every frame is the same frame."""
    return np.repeat(_picture(rng, rows, cols, width)[None], frames, 0), np.zeros((frames, rows * cols))


_RECIPES = {
    "video_static": _static,
    "video_scene_cuts": scene_cuts,
    "video_noise": _noise,
    "video_constant": _constant,
}
