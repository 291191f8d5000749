"""The only rounding of the library: exact counts, at least one, never more than there are."""

import random
from fractions import Fraction

import numpy as np
import pytest

from vlm_pruner.budget import check_keep, keep_count, layer_average, split_budget
from vlm_pruner.errors import PlanError


@pytest.mark.parametrize(
    ("total", "keep", "count"),
    [(576, 64, 64), (576, 1, 1), (576, 1.0, 576), (576, 0.111, 64), (576, 1 / 9, 64), (30, 0.1, 3), (10, 0.01, 1)],
)
def test_counts(total, keep, count):
    assert keep_count(total, keep) == count


def test_a_share_is_rounded_up_exactly():
    for total in range(1, 200):
        for percent in range(1, 101):
            exact = Fraction(percent, 100) * total
            assert keep_count(total, percent / 100) == max(1, -(-exact.numerator // exact.denominator))


@pytest.mark.parametrize("keep", [0, -1, 0.0, 1.5, -0.5, float("nan"), "many", None, True])
def test_wrong_budgets_name_what_is_allowed(keep):
    with pytest.raises(PlanError, match=r"whole number of tokens per image \(64\) or a share in \(0, 1\]"):
        check_keep(keep)


def test_more_than_there_are():
    with pytest.raises(PlanError, match=r"keep=577 asks for more tokens than the image has \(576\)"):
        keep_count(576, 577)
    with pytest.raises(PlanError, match="no visual tokens"):
        keep_count(0, 1)


def test_numbers_of_other_libraries_are_plain_numbers():
    assert type(check_keep(np.int64(64))) is int
    assert type(check_keep(np.float32(0.5))) is float


def test_parts_share_the_budget_exactly():
    draw = random.Random(0)
    for _ in range(300):
        totals = [draw.randint(1, 60) for _ in range(draw.randint(1, 6))]
        keep = draw.randint(len(totals), sum(totals))
        quotas = split_budget(totals, keep)
        assert sum(quotas) == keep
        assert all(1 <= quota <= total for quota, total in zip(quotas, totals, strict=True))
        if len(set(totals)) == 1:
            assert max(quotas) - min(quotas) <= 1


def test_a_budget_that_cannot_be_split():
    with pytest.raises(PlanError, match="cannot split 1 tokens over 2 parts that hold 8 together"):
        split_budget([4, 4], 1)


def test_layer_average():
    assert layer_average([576, 576, *[64] * 30]) == 96.0
