"""Ranges of samples deeper than 8 bits where there is nothing to measure one by; the others are in test_opening.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from vlm_pruner.asking import as_shown, notes_of, open_image


@pytest.mark.parametrize("named", [False, True])
def test_a_picture_of_one_shade_is_shown_in_it(named: bool, tmp_path: Path) -> None:
    """A file that names one number as its range names none."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if named:
        tags[280], tags[281] = 700, 700
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(tmp_path / "one.tiff", tiffinfo=tags)
    shown = open_image(tmp_path / "one.tiff")
    assert np.asarray(shown).min() == np.asarray(shown).max() == round(700 / 1023 * 255)
    assert notes_of(shown) == ("its samples reach from 700 to 700: shown by the range from 0 to 1023",)


def test_a_picture_without_a_single_number_is_black() -> None:
    assert np.asarray(as_shown(Image.fromarray(np.full((4, 4), np.nan, np.float32)))).max() == 0
