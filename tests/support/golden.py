"""Golden cases: what the methods' own released code keeps, in float32, on inputs rebuilt here from a seed.

    for case in cases("divprune"):
        tensors = build(case)      # float32 torch tensors by name

`tests/golden/expected.json` holds numbers only. Every case carries a checksum of each tensor it builds, so a change of
NumPy's random stream shows as a checksum error and never as a wrong selection. Fields: `recipe`, `seed`, `grid` (rows,
columns; tokens in raster order), `keep` (tokens asked for), `params` (what differs from the method's defaults), and
`expected` with `kept` (ascending), `order` (ties inside a block may come out otherwise) and, for merging,
`merged_row_sum` / `merged_row_sqsum` of each kept row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tests.support.golden_cases import Array, Case, Cases, check_sums
from tests.support.slowly import the_rest_slowly
from torch import Tensor

_CASES = Cases("expected.json")
methods, cases = _CASES.methods, _CASES.of


def for_kernels(method: str) -> list[Any]:
    """Parameters `case`: one of each kind always, the rest with the slow tests: without a device an
    interpreter runs kernels, which takes seconds."""
    made = cases(method)
    first = {case["recipe"]: case for case in reversed(made) if case["keep"] <= 64}
    return the_rest_slowly(made, list(first.values()))


def case_id(case: Case) -> str:
    """A readable name for pytest."""
    rows, cols = case["grid"]
    return f"{case['recipe']}-{rows}x{cols}-keep{case.get('keep')}-seed{case['seed']}"


def build(case: Case) -> dict[str, Any]:
    """The tensors of one case by name, float32; `start` (where the image begins) stays an int.

    Raises:
        AssertionError: a checksum differs, i.e. NumPy's random stream has changed.
    """
    rng = np.random.default_rng(case["seed"])
    rows, cols = case["grid"]
    arrays = _RECIPES[case["recipe"]](rng, rows, cols, case.get("width", 320))
    check_sums(case, arrays)
    return {k: v if isinstance(v, int) else torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}


def vlm_pruner_inputs(case: Case) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    """(features [n, d], keys [heads, n, head_dim], grid) of a case whose recipe has keys."""
    tensors = build(case)
    rows, cols = case["grid"]
    return tensors["hidden"], tensors["keys"], (1, rows, cols)


def field(
    rng: np.random.Generator,
    rows: int,
    cols: int,
    width: int,
    blobs: int = 12,
    noise: float = 0.35,
    bias: float = 0.6,
) -> Array:
    """Spatially correlated features [rows*cols, width]: blob prototypes, a shared direction and white noise."""
    y, x = np.mgrid[0:rows, 0:cols]
    points = np.stack([y.ravel() / rows, x.ravel() / cols], 1)
    centres, scales = rng.random((blobs, 2)), rng.uniform(0.05, 0.3, blobs)
    weights = np.exp(-((points[:, None] - centres[None]) ** 2).sum(-1) / (2 * scales**2)) + 1e-3
    weights /= weights.sum(1, keepdims=True)
    features = weights @ rng.standard_normal((blobs, width)) + bias * rng.standard_normal(width)
    features = features + noise * rng.standard_normal((rows * cols, width))
    scaled: Array = (features * np.exp(0.5 * rng.standard_normal(width))).astype(np.float32)
    return scaled


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    p: Array = (e / e.sum(-1, keepdims=True)).astype(np.float32)
    return p


def _heads(keys: Array) -> Array:
    return keys.reshape(-1, 8, 32).transpose(1, 0, 2).copy()


def _keys_hidden(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    hidden = field(rng, rows, cols, d)
    return {"hidden": hidden, "keys": _heads(field(rng, rows, cols, 256, noise=0.6))}


def _keys_hidden_text(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    """The image stands between 8 text tokens before it and 12 after it."""
    start, tail = 8, 12
    a, b = rng.standard_normal((start, d)), rng.standard_normal((tail, d))
    c, e = rng.standard_normal((start, 256)), rng.standard_normal((tail, 256))
    hidden = np.concatenate([a, field(rng, rows, cols, d), b]).astype(np.float32)
    keys = np.concatenate([c, field(rng, rows, cols, 256, noise=0.6), e]).astype(np.float32)
    return {"hidden": hidden, "keys": _heads(keys), "start": start}


def _flat(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    """A nearly constant image, on which the released code stops early."""
    row = rng.standard_normal(d)
    hidden = (row + 1e-3 * rng.standard_normal((rows * cols, d))).astype(np.float32)
    return {"hidden": hidden, "keys": _heads(field(rng, rows, cols, 256, noise=0.6))}


def _iid(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    """Cosines around zero, many negative."""
    n = rows * cols
    hidden = rng.standard_normal((n, d)).astype(np.float32)
    return {"hidden": hidden, "keys": rng.standard_normal((8, n, 32)).astype(np.float32)}


def _features(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    return {"features": field(rng, rows, cols, d)}


def _features_text(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    """Projector output; image and text embeddings in one shared space."""
    features, embeds = field(rng, rows, cols, d), field(rng, rows, cols, 128)
    text = rng.standard_normal((1, 128)).astype(np.float32)
    return {"features": features, "image_embeds": embeds, "text_embeds": text}


def _features_words(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    """Projector output, vision features, word embeddings of the language model."""
    features, vision = field(rng, rows, cols, d), field(rng, rows, cols, 192, blobs=16)
    return {"features": features, "vision": vision, "words": rng.standard_normal((9, d)).astype(np.float32)}


def _vision_cls(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    """Vision-tower features and head-mean keys, CLS row first; attention of the CLS row [heads, n]."""
    hidden = np.concatenate([rng.standard_normal((1, d)).astype(np.float32), field(rng, rows, cols, d, blobs=16)])
    attention = softmax(rng.standard_normal((8, rows * cols)).astype(np.float32) * 2)
    metric = np.concatenate([rng.standard_normal((1, 64)).astype(np.float32), field(rng, rows, cols, 64)])
    return {"hidden": hidden, "attention": attention, "metric": metric}


def _decoder_attention(rng: np.random.Generator, rows: int, cols: int, d: int) -> dict[str, Any]:
    """Causal attention of one decoder layer [heads, length, length], the image at start..start+n."""
    start, tail = 35, 40
    length = start + rows * cols + tail
    a = rng.standard_normal((4, length, length)).astype(np.float32) * 2
    a[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
    return {"attention": softmax(a), "start": start}


_RECIPES: dict[str, Callable[[np.random.Generator, int, int, int], dict[str, Any]]] = {
    "keys_hidden": _keys_hidden,
    "keys_hidden_text": _keys_hidden_text,
    "flat": _flat,
    "iid": _iid,
    "features": _features,
    "features_text": _features_text,
    "features_words": _features_words,
    "vision_cls": _vision_cls,
    "decoder_attention": _decoder_attention,
}
