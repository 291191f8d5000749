"""No file under a megabyte makes any command or the page use a gigabyte more than the demo picture does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support.tiny import checkpoint

from vlm_pruner.asking import DEMO_IMAGE, notes_of, open_image
from vlm_pruner.asking.opening import MAX_SIDE, READ_PIXELS
from vlm_pruner.errors import InputError

SIDE = 7999  # as large as a picture may be


def plain(mode: str, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (SIDE, SIDE)).save(path, **options)


def deep(path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 4000, np.uint16)).save(path)


def animation(path: Path) -> None:
    frames = [Image.new("RGB", (6900, 6900), colour) for colour in ((200, 30, 30), (20, 30, 200))]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)


FILES: dict[str, Callable[[Path], None]] = {
    "plain.png": plain("RGB"),
    "clear.png": plain("RGBA"),
    "deep.png": deep,
    "float.tiff": plain("F", compression="tiff_adobe_deflate"),
    "progressive.jpg": plain("RGB", progressive=True, quality=30),
    "wavelet.jp2": plain("RGB"),
    "turned.png": lambda path: plain("RGB", exif=turned())(path),
    "animation.webp": animation,
    "thin.png": lambda path: Image.new("RGB", (1, 12_000)).save(path),
    "thread.png": lambda path: Image.new("RGB", (20, 3_000_000)).save(path),
    "tall.png": lambda path: Image.new("RGB", (900, 65_000)).save(path),
}


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@cache
def peak(door: str, picture: str) -> int:
    """Megabytes that a door of the product needs for a picture, in a process of its own."""
    words = [sys.executable, "-m", "tests.support.peak", door, str(checkpoint()), picture]
    said = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True).stdout
    megabytes, code, why = said.split("\n")[-2].split(" ", 2)
    assert code == "0" or "too thin" in why or f"at most {MAX_SIDE}" in why, said
    return int(megabytes)


CASES = [("ask", name) for name in FILES]
CASES += [(door, name) for door in ("report", "profile", "page") for name in ("plain.png", "thin.png")]
CASES += [("page", "animation.webp")]


@pytest.mark.slow
@pytest.mark.parametrize(("door", "name"), CASES)
def test_no_small_file_takes_a_gigabyte_more(door: str, name: str, tmp_path: Path) -> None:
    """The largest picture took 1.6 GB more: the overlay asked the processor about pictures just as large."""
    path = tmp_path / name
    FILES[name](path)
    assert path.stat().st_size < 1_000_000
    assert peak(door, str(path)) < peak(door, DEMO_IMAGE) + 1000


def test_a_large_picture_is_read_at_a_size_that_is_said(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((6000, 5000)).convert("RGB").save(tmp_path / "large.png", compress_level=1)
    shown = open_image(tmp_path / "large.png")
    assert 0.99 * READ_PIXELS < shown.width * shown.height <= READ_PIXELS
    assert abs(shown.width / shown.height - 1.2) < 0.001
    assert notes_of(shown) == (f"it has 30 megapixels: it is read at {shown.width} x {shown.height}",)
    reds = [shown.getpixel((9, int(y * shown.height)))[0] for y in (0.1, 0.5, 0.9)]
    assert reds == pytest.approx([26, 128, 230], abs=1)


@pytest.mark.parametrize("ending", ["jp2", "jpg"])
def test_decoders_that_can_leave_pixels_out_do_so(ending: str, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((8000, 7000)).save(tmp_path / f"large.{ending}")
    shown = open_image(tmp_path / f"large.{ending}")
    assert shown.size == (4000, 3500)
    assert "it has 56 megapixels: it is read at 4000 x 3500" in notes_of(shown)


def test_a_side_that_would_make_gigabytes_of_a_resized_picture_is_refused(tmp_path: Path) -> None:
    Image.new("L", (20, 70_000)).save(tmp_path / "thread.png")
    with pytest.raises(InputError, match="a side of 70000 pixels; at most 65535 are read"):
        open_image(tmp_path / "thread.png")
