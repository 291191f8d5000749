"""What is made of what lmms-eval logged and refused; lmms-eval itself is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.tiny import checkpoint

from vlm_pruner.asking import open_model
from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.lmms import run
from vlm_pruner.evaluation.lmms.run import Task, _samples, cells_of


def test_samples_are_in_the_order_of_the_documents() -> None:
    rows = [{"doc_id": 2, "right": 0}, {"doc_id": 0, "right": 1.0}, {"doc_id": 1, "right": True}]
    assert _samples(rows, "right", 2 / 3) == [1.0, 1.0, 0.0]


def test_a_score_that_is_not_their_mean_has_no_samples() -> None:
    rows = [{"doc_id": 0, "right": 1}, {"doc_id": 1, "right": 0}]
    assert _samples(rows, "right", 0.75) == []
    assert _samples(rows, "other", 0.5) == []
    assert _samples([{"doc_id": 0, "right": "yes"}], "right", 1.0) == []
    assert _samples([], "right", 0.0) == []


def test_a_method_that_cannot_run_is_a_row_and_a_model_that_cannot_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = open_model(str(checkpoint()))
    cells, _ = cells_of(loaded, {"fastv": "fastv"}, [0.5])

    def refused(loaded: Any, cell: Task, *_: Any) -> None:
        if cell.label in wrong:
            raise PlanError(f"no {cell.label} here")

    monkeypatch.setattr(run, "_one", refused)
    wrong = {"fastv"}
    found, left_out = run.evaluate(loaded, cells, ["a"], tmp_path, manager=None, batch_size=1)
    assert found == []
    assert left_out == [{"label": "fastv", "budget": 0.5, "reason": "no fastv here"}]
    wrong = {"none"}
    with pytest.raises(PlanError, match="no none here"):
        run.evaluate(loaded, cells, ["a"], tmp_path, manager=None, batch_size=1)
