"""A model in use: pruned and unpruned by turns, and by several threads at once. `benchmarks.attached` does more."""

from __future__ import annotations

import pytest
from tests.support.steady import in_turn, interleaved


def test_pruning_on_and_off_leaves_nothing_and_changes_nothing() -> None:
    left, wrong = in_turn(24)
    assert not wrong
    assert left == 0


@pytest.mark.parametrize("threads", [4])
def test_threads_get_what_each_would_get_alone(threads: int) -> None:
    assert not interleaved(threads, 6)
