"""Two records of kept tokens: what differs between them is named, what is equal is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.replay import compare

OLD = {"grid 7 equal": {"index": [1, 2], "order": None}, "tome 7 equal": "PlanError", "gone": "PlanError"}
NEW = {"grid 7 equal": {"index": [1, 3], "order": None}, "tome 7 equal": {"index": [0]}, "new": "PlanError"}


def test_what_differs_is_named() -> None:
    assert compare(OLD, OLD) == []
    assert compare(OLD, NEW) == [
        "gone: only in the old",
        "grid 7 equal: index differ",
        "new: only in the new",
        "tome 7 equal: PlanError became a choice",
    ]


def test_records_are_the_same_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import benchmarks.replay as replay

    monkeypatch.setattr(replay, "GRIDS", ((1, 3, 4),))
    monkeypatch.setattr(replay, "SEEDS", 1)
    monkeypatch.setattr(replay, "BUDGETS", (3,))
    monkeypatch.setattr(replay, "_golden", lambda: iter(()))
    first, second = replay.record(0), replay.record(0)
    assert json.loads(json.dumps(first)) == second
    assert first["grid 3 random (1, 3, 4) 0"]["index"]
    changed = {**first, "grid 3 random (1, 3, 4) 0": {"index": [0], "order": None, "rows": None}}
    assert compare(first, changed) == ["grid 3 random (1, 3, 4) 0: index differ"]
