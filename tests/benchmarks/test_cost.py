"""The cost model on a profile whose numbers can be followed by hand."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.cost import costs


def profile(layer: int = 0) -> dict[str, Any]:
    """60 words, two pictures of 300 tokens, 1,000 bytes a token."""
    whole = {"name": "unpruned", "stages": [], "kv_bytes": 667_000, "median_ms": {"first_token": 100.0, "decode": 10.0}}
    cut = {"name": "keep 0.25", "stages": [[layer, 0.25]], "kept": 150, "kv_bytes": 217_000,
           "median_ms": {"first_token": 40.0, "decode": 8.0}}  # fmt: skip
    return {"text_tokens": 60, "image_tokens": [300, 300], "new_tokens": 8, "variants": [whole, cut]}


GIVEN: dict[str, Any] = {"gpus": 2, "price": 3.6, "cache_gb": 0.00704, "answer": 41, "batch": 256}


def test_requests_that_fit_share_the_decode_steps() -> None:
    whole, cut = costs(profile(), **GIVEN)
    assert (whole["tokens"], whole["blocks"], whole["together"]) == (660, 44, 10)  # 44 x 16 x 1,000 bytes each
    assert (cut["tokens"], cut["blocks"], cut["together"]) == (210, 16, 27)
    assert whole["requests_a_second"] == pytest.approx(2 / 0.14)  # 100 ms and a tenth of 40 steps
    assert whole["price_of_a_million"] == pytest.approx(500_000 * 0.14 * 3.6 / 3600)
    assert cut["price_of_a_million"] == pytest.approx(500_000 * (0.04 + 40 * 0.008 / 27) * 3.6 / 3600)


def test_no_more_than_the_batch() -> None:
    assert [row["together"] for row in costs(profile(), **GIVEN | {"batch": 4})] == [4, 4]


def test_what_cannot_be_served() -> None:
    with pytest.raises(ValueError, match=r"keep 0\.25 prunes behind a layer"):
        costs(profile(layer=2), **GIVEN)
    with pytest.raises(ValueError, match="hold no request of 44 blocks"):
        costs(profile(), **GIVEN | {"cache_gb": 0.0007})
