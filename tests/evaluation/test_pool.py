from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from vlm_pruner.errors import InputError
from vlm_pruner.evaluation.pool import in_processes


def squares(tasks: Iterator[int]) -> Iterator[int]:
    for task in tasks:
        if task == 13:
            raise ValueError("no 13 today")
        if task == 14:
            os._exit(3)
        if task == 15:
            raise InputError("the picture is gone")
        yield task * task


def test_every_task_is_done_once() -> None:
    assert sorted(in_processes(squares, range(7), 2)) == [n * n for n in range(7)]


def test_a_failing_worker_is_told_with_its_trace() -> None:
    with pytest.raises(RuntimeError, match="no 13 today"):
        list(in_processes(squares, [13], 1))


def test_a_killed_worker_is_told() -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        list(in_processes(squares, [14], 1))


def test_a_refusal_is_told_in_its_own_words() -> None:
    with pytest.raises(InputError) as told:
        list(in_processes(squares, [15], 2))
    assert str(told.value) == "the picture is gone"
