"""The pictures of the README and the docs can be made anew."""

from __future__ import annotations

from pathlib import Path

from docs.pictures import FOLDER, draw
from PIL import Image


def test_all_of_them_are_made(tmp_path: Path) -> None:
    paths = draw(tmp_path)
    assert {path.name for path in paths} == {path.name for path in FOLDER.iterdir()}
    for path in paths:
        with Image.open(path) as made, Image.open(FOLDER / path.name) as shown:
            assert made.size == shown.size, path.name
