"""What lmms-eval logged of every document, beside the score that it gave; lmms-eval itself is not needed."""

from __future__ import annotations

from vlm_pruner.evaluation.lmms.run import _samples


def test_samples_are_in_the_order_of_the_documents() -> None:
    rows = [{"doc_id": 2, "right": 0}, {"doc_id": 0, "right": 1.0}, {"doc_id": 1, "right": True}]
    assert _samples(rows, "right", 2 / 3) == [1.0, 1.0, 0.0]


def test_a_score_that_is_not_their_mean_has_no_samples() -> None:
    rows = [{"doc_id": 0, "right": 1}, {"doc_id": 1, "right": 0}]
    assert _samples(rows, "right", 0.75) == []
    assert _samples(rows, "other", 0.5) == []
    assert _samples([{"doc_id": 0, "right": "yes"}], "right", 1.0) == []
    assert _samples([], "right", 0.0) == []
