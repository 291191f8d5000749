from __future__ import annotations

import numpy as np
import pytest

from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.statistics import Bootstrap, Interval

RNG = np.random.default_rng(7)


def bernoulli(n: int, p: float) -> np.ndarray:
    return (RNG.random(n) < p).astype(float)


def test_point_estimates_are_means_over_types() -> None:
    boot = Bootstrap(["a", "a", "b", "b", "b", "b"], range(6), draws=50)
    correct = [1, 0, 1, 1, 1, 0]
    full = [1, 1, 1, 1, 1, 1]
    assert boot.type_accuracy(correct)["a"].value == 0.5
    assert boot.accuracy(correct).value == pytest.approx((0.5 + 0.75) / 2)
    assert boot.retention(correct, full).value == pytest.approx((0.5 + 0.75) / 2)


def test_retention_is_the_mean_of_the_ratios_not_the_ratio_of_the_means() -> None:
    boot = Bootstrap(["a"] * 4 + ["b"] * 4, range(8), draws=50)
    full = [1, 1, 1, 1, 1, 0, 0, 0]
    pruned = [1, 1, 0, 0, 1, 0, 0, 0]
    assert boot.retention(pruned, full).value == pytest.approx((0.5 + 1.0) / 2)


def test_a_type_that_the_full_model_never_gets_right_is_left_out() -> None:
    boot = Bootstrap(["a", "a", "b"], range(3), draws=50)
    interval = boot.retention([1, 0, 1], [1, 1, 0])
    assert interval.value == 0.5
    assert np.isfinite([interval.low, interval.high]).all()


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    hits = 0
    for trial in range(200):
        boot = Bootstrap(["a"] * 60 + ["b"] * 60, range(120), draws=300, seed=trial)
        interval = boot.accuracy(np.concatenate([bernoulli(60, 0.8), bernoulli(60, 0.5)]))
        hits += interval.low <= 0.65 <= interval.high
    assert 178 <= hits <= 199


def test_pairing_makes_the_interval_of_a_difference_narrow() -> None:
    n = 400
    boot = Bootstrap(["a"] * n, range(n))
    hard = bernoulli(n, 0.5)
    worse = np.where(np.arange(n) % 25 == 0, 0.0, hard)
    difference = boot.accuracy_difference(worse, hard)
    assert difference.excludes_zero
    assert difference.half < boot.accuracy(hard).half / 2


def test_questions_of_one_scene_are_resampled_together() -> None:
    """Answers that agree within a scene are worth one answer a scene."""
    per_scene = bernoulli(50, 0.5)
    repeated = np.repeat(per_scene, 8)
    clustered = Bootstrap(["a"] * 400, np.repeat(np.arange(50), 8).tolist()).accuracy(repeated)
    single = Bootstrap(["a"] * 50, range(50)).accuracy(per_scene)
    naive = Bootstrap(["a"] * 400, range(400)).accuracy(repeated)
    assert clustered.half == pytest.approx(single.half, rel=1e-9)
    assert clustered.half > 2 * naive.half


def test_seeds_are_averaged_per_question() -> None:
    boot = Bootstrap(["a"] * 4, range(4), draws=50)
    assert boot.accuracy([[1, 0, 1, 0], [1, 1, 0, 0]]).value == 0.5


def test_same_seed_same_interval_and_no_difference_to_itself() -> None:
    correct = bernoulli(40, 0.6)
    first, second = (Bootstrap(["a"] * 40, range(40), seed=3).accuracy(correct) for _ in range(2))
    assert first == second
    assert Bootstrap(["a"] * 40, range(40)).accuracy_difference(correct, correct) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("types", "scenes"), [([], []), (["a"], [1, 2])])
def test_needs_a_type_and_a_scene_for_every_question(types: list[str], scenes: list[int]) -> None:
    with pytest.raises(PlanError, match="needs questions"):
        Bootstrap(types, scenes)


def test_wrong_number_of_answers_is_named() -> None:
    with pytest.raises(PlanError, match="answers to 2 questions, the bootstrap has 3"):
        Bootstrap(["a"] * 3, range(3)).accuracy([1, 0])


def test_equal_answers_are_resampled_once_and_different_ones_are_not_mixed_up() -> None:
    types, seeds = ["a"] * 20 + ["b"] * 20, np.stack([bernoulli(40, 0.6), bernoulli(40, 0.6)])
    boot = Bootstrap(types, range(40), draws=200)
    first = boot.per_type(seeds)
    assert boot.per_type(seeds.copy()) is first
    assert not first.flags.writeable
    flipped = boot.per_type(1 - seeds)
    np.testing.assert_array_equal(flipped, Bootstrap(types, range(40), draws=200).per_type(1 - seeds))
    np.testing.assert_allclose(np.nan_to_num(first + flipped, nan=1.0), 1)
