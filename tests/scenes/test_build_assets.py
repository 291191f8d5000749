"""What the committed pictures of the scenes are made by still makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_pruner.scenes.build_assets import character, photograph, pictogram
from vlm_pruner.scenes.render import ASSETS
from vlm_pruner.scenes.vocabulary import ALPHABET, GLYPHS

CLOSE = 0.02  # of 1, on average: a font is rasterised a little otherwise by each version of FreeType


@pytest.fixture(scope="module")
def fonts() -> Path:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra `viz`")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def test_pictograms_are_those_that_were_committed(fonts: Path) -> None:
    shapes = np.load(ASSETS / "sprites.npz")["shapes"] / 255
    assert len(shapes) == len(GLYPHS)
    for number, code in enumerate(GLYPHS.values()):
        for style in (0, 1):
            assert abs(pictogram(fonts, code, style) - shapes[number, style]).mean() < CLOSE, (number, style)


def test_letters_are_those_that_were_committed(fonts: Path) -> None:
    letters = np.load(ASSETS / "sprites.npz")["letters"] / 255
    assert len(letters) == len(ALPHABET)
    for number, char in enumerate(ALPHABET):
        made = character(fonts, "DejaVuSansMono-Bold.ttf", char)
        assert abs(made - letters[number, 0]).mean() < CLOSE, char


@pytest.mark.parametrize(
    ("size", "inner"), [((800, 300), (200, 0, 600, 300)), ((400, 600), (0, 150, 400, 450)), ((40, 30), (0, 0, 40, 30))]
)
def test_of_a_photograph_the_middle_is_taken(
    size: tuple[int, int], inner: tuple[int, int, int, int], tmp_path: Path
) -> None:
    whole = Image.new("RGB", size, "red")
    whole.paste("blue", inner)
    whole.save(tmp_path / "made.png")
    found = photograph(tmp_path, "made")
    assert found.size == (640, 480)
    assert found.getcolors() == [(640 * 480, (0, 0, 255))]
