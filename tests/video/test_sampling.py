"""Which frames are taken."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from vlm_pruner import InputError
from vlm_pruner.video import Sampling
from vlm_pruner.video.sampling import READ_PIXELS, within


@pytest.mark.parametrize(
    ("sampling", "seconds", "total", "count"),
    [
        (Sampling(), 1, 30, 4),
        (Sampling(), 5, 150, 10),
        (Sampling(), 600, 18000, 32),
        (Sampling(), 5, 3, 3),
        (Sampling(frames=7), 5, 150, 7),
        (Sampling(frames=1), 5, 150, 1),
        (Sampling(frames=500), 5, 150, 150),
        (Sampling(fps=1), 5, 150, 5),
        (Sampling(fps=0.3), 5, 150, 2),
        (Sampling(fps=60), 5, 150, 150),
    ],
)
def test_counts(sampling: Sampling, seconds: int, total: int, count: int) -> None:
    times = sampling.times(Fraction(seconds), total)
    assert len(times) == count
    assert times[0] == 0
    assert times == sorted(set(times))
    assert times[-1] < seconds


def test_frames_a_second_are_exactly_so_far_apart() -> None:
    assert Sampling(fps=0.4).times(Fraction(10), 300) == [0, Fraction(5, 2), 5, Fraction(15, 2)]


@pytest.mark.parametrize(
    "wrong", [{"fps": 0}, {"fps": float("nan")}, {"frames": 0}, {"frames": 769}, {"fps": 1, "frames": 2}]
)
def test_what_takes_nothing_or_too_much_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Sampling(**wrong)


def test_the_limit_is_said() -> None:
    with pytest.raises(InputError, match="2 frames a second of 600 seconds are 1200 frames; at most 768 are read"):
        Sampling(fps=2).times(Fraction(600), 18000)


def test_large_frames_are_made_smaller_together() -> None:
    assert within((320, 240), 32) == (320, 240)
    width, height = within((3840, 2160), 32)
    assert 0.98 * READ_PIXELS < 32 * width * height < 1.02 * READ_PIXELS
    assert abs(width / height - 3840 / 2160) < 0.01
