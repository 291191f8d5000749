"""Logs of a job: a kill tears nothing but its own last line, and nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_pruner.errors import InputError
from vlm_pruner.serving.batch.answer import COSTS, Result
from vlm_pruner.serving.batch.store import Record, Store

ONE = Record({3: Result("yes", 64, 576), 1: Result(error="broken \u2028 \ud800")}, 10.0, dict.fromkeys(COSTS, 5))
TWO = Record({2: Result("no", 64, 576)}, 4.0, dict.fromkeys(COSTS, 1))


def test_what_is_appended_is_read_by_every_process(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "out.jsonl", {"a": 1}), Store(tmp_path / "out.jsonl", {"a": 1})
    first.append(ONE)
    second.append(TWO)
    second.append(ONE)  # another process was faster
    found = Store(tmp_path / "out.jsonl", {"a": 1}).read()
    assert found.results == {**ONE.results, **TWO.results}
    assert found.milliseconds == {1: 5.0, 3: 5.0, 2: 4.0}
    assert set(found.costs.values()) == {6}


def test_a_torn_line_is_not_read_whatever_is_left_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "out.jsonl", {})
    store.append(TWO)
    store.append(ONE)
    (log,) = store.folder.glob("*.log")
    whole = log.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        log.write_bytes(whole[:cut])
        assert Store(tmp_path / "out.jsonl", {}).read().results == TWO.results
    log.write_bytes(whole)
    assert len(store.read().results) == 3


def test_the_logs_of_another_job_are_left_alone(tmp_path: Path) -> None:
    Store(tmp_path / "out.jsonl", {"model": "a", "plan": 1}).append(ONE)
    with pytest.raises(InputError, match="an unfinished job with another plan"):
        Store(tmp_path / "out.jsonl", {"model": "a", "plan": 2})


def test_nothing_is_left_in_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "out.jsonl", {})
    store.append(ONE)
    store.remove()
    assert not list(tmp_path.iterdir())
