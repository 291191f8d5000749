"""Small picture files and questions as people have them, and what an image viewer shows of each file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["QUESTIONS", "THIN", "gradient", "write_pictures"]

THIN = (1000, 4000, 12000)
"""Heights of pictures one pixel wide: a processor that brings the shorter side to 336 makes gigabytes of them."""

QUESTIONS = (
    "What is this? <|video_pad|>",
    "What is this? <video>",
    "What is this? <image_soft_token>",
    "What is this? <image>",
    "a" * 10_000,
    "What \udcff is this?",
)
"""What people type beside them: each is answered, or refused in one line."""

Shown = NDArray[np.uint8]  # [h, w, 3]


def gradient(rows: int = 48, columns: int = 64) -> NDArray[np.uint8]:
    """[rows, columns] grey."""
    y, x = np.mgrid[0:rows, 0:columns]
    return ((x * 3 + y) % 256).astype(np.uint8)


def write_pictures(folder: Path) -> dict[str, Shown]:
    """Write all files; what is right by name, for those that every model can take."""
    grey = gradient()
    red, ink = np.zeros((48, 64, 4), np.uint8), np.zeros((48, 64, 4), np.uint8)
    red[..., 1] = 200  # hidden green
    red[12:36, 16:48] = (220, 30, 30, 255)
    ink[20:28, 8:56, 3] = 255
    palette = Image.fromarray(red).convert("RGB").quantize(8)

    Image.fromarray(grey).save(folder / "grey8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "grey16.png")
    Image.fromarray(grey.astype(np.uint16) * 16).save(folder / "grey12in16.png")
    Image.fromarray((grey / 255).astype(np.float32)).save(folder / "float.tiff")
    Image.fromarray(red).save(folder / "alpha.png")
    Image.fromarray(ink).save(folder / "ink.png")
    palette.save(folder / "palette.png", transparency=0)
    for height in THIN:
        Image.new("RGB", (1, height), (200, 30, 30)).save(folder / f"thin{height}.png")
    Image.fromarray(np.dstack([gradient(320, 13)] * 3)).save(folder / "tall.png")
    Image.fromarray(np.dstack([gradient(4, 1200)] * 3)).save(folder / "wide.png")
    Image.new("CMYK", (32, 32), (255, 128, 0, 0)).save(folder / "cmyk.jpg", quality=95)

    seen = np.asarray(palette.convert("RGB")).copy()
    seen[np.asarray(palette) == 0] = 255
    grey8 = np.dstack([grey] * 3)
    return {
        "grey8.png": grey8,
        "grey16.png": grey8,
        "grey12in16.png": grey8,  # the range is guessed, and it is said
        "float.tiff": grey8,
        "alpha.png": _on_white(red),
        "ink.png": _on_white(ink),
        "palette.png": seen,
        "cmyk.jpg": np.full((32, 32, 3), (0, 127, 255), np.uint8),
        "tall.png": np.dstack([gradient(320, 13)] * 3),
    }


def _on_white(rgba: NDArray[np.uint8]) -> Shown:
    return np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)
