"""Which frames of a video are taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from vlm_pruner.errors import InputError

__all__ = ["MAX_FRAMES", "Sampling", "within"]

MAX_FRAMES = 768
"""Frames that are read of one video."""

READ_PIXELS = 100_000_000
"""Pixels of all frames together that are read: 300 MB. Larger frames are made smaller."""

MAX_FPS = 1_000_000
USUAL_FPS, USUAL_LEAST, USUAL_MOST = 2, 4, 32


@dataclass(frozen=True)
class Sampling:
    """`fps` frames a second, or `frames` at equal distances; without either 2 a second, but 4 at least and 32 at most.

    Raises:
        InputError: both are given, or one that takes nothing or more than 768 frames.
    """

    fps: float | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.frames is not None:
            raise InputError("frames a second and a number of frames exclude each other: give one of them")
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise InputError(
                f"{self.fps!r} frames a second cannot be taken: give a number above 0, at most {MAX_FPS:,}"
            )
        if self.frames is not None and not 1 <= self.frames <= MAX_FRAMES:
            raise InputError(f"{self.frames} frames cannot be taken of a video: give 1 to {MAX_FRAMES}")

    def times(self, duration: Fraction, total: int) -> list[Fraction]:
        """Seconds from the start at which frames are taken, ascending: never more than there are.

        Args:
            duration: of the video, in seconds.
            total: frames that it has.

        Raises:
            InputError: so many frames a second are more than 768.
        """
        if self.fps is None:
            usual = min(max(math.ceil(USUAL_FPS * duration), USUAL_LEAST), USUAL_MOST)
            count = min(self.frames or usual, total)
            return [number * duration / count for number in range(count)]
        rate = min(Fraction(repr(float(self.fps))), total / duration)
        count = max(1, math.ceil(duration * rate))
        if count > MAX_FRAMES:
            raise InputError(
                f"{self.fps:g} frames a second of {float(duration):.0f} seconds are {count} frames; "
                f"at most {MAX_FRAMES} are read: take fewer"
            )
        return [number / rate for number in range(count)]


def within(size: tuple[float, float], frames: int) -> tuple[int, int]:
    """(width, height) at which each of so many frames is read."""
    share = min(1.0, (READ_PIXELS / (frames * float(size[0]) * float(size[1]))) ** 0.5)
    return max(1, round(float(size[0]) * share)), max(1, round(float(size[1]) * share))
