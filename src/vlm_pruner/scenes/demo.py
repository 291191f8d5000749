"""One scene to try things on, as a picture file in the package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .layout import Scene, sample_scene
from .render import ASSETS, PHOTOS

DEMO = ASSETS / "demo.jpg"
"""The demo scene at 672x672; `build_assets` draws it."""

DEMO_QUESTIONS = (
    ("What is the word?", "MARCH"),
    ("What is the number?", "275"),
    ("How many note symbols are there?", "three"),
    ("What color is the ring?", "red"),
    ("What is right of the gear?", "club"),
    ("What is the yellow object?", "club"),
)
"""Questions about it and their answers, which the embedded model gives with 64 of the 576 visual tokens, too."""


def demo_scene() -> Scene:
    """A word, a number, pictograms of all sizes and two marks of one token, on a photograph of the test split."""
    scene = sample_scene(np.random.default_rng([5, 132]), "test", len(PHOTOS["test"]), (672, 672))
    return replace(scene, tint=None)
