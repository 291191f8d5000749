"""Rebuild `assets/` from matplotlib's glyphs and scikit-image's photographs.

Run as `python -m vlm_pruner.scenes.build_assets`.

The results are committed, so that a benchmark needs neither package and does not change with a font rasteriser.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .demo import DEMO, demo_scene
from .render import ASSETS, PHOTOS, render, sprites
from .vocabulary import ALPHABET, GLYPHS

SOURCES = {
    "clock": "clock_motion.png",
    "rocket": "rocket.jpg",
    "hubble": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
}
CELL, CAP, BASELINE = 64, 44, 54  # sprite side, height of a capital letter in it, its baseline


def pictogram(font_folder: Path, code: int, style: int) -> np.ndarray:
    """[2, 64, 64] in [0, 1]: luminance (0.5 is the fill colour) and alpha. Style 0: dark rim, style 1: white rim."""
    font = ImageFont.truetype(str(font_folder / "DejaVuSans.ttf"), 200)
    box = font.getbbox(chr(code))
    glyph = Image.new("L", (int(box[2] - box[0]) + 40, int(box[3] - box[1]) + 40))
    ImageDraw.Draw(glyph).text((20 - box[0], 20 - box[1]), chr(code), fill=255, font=font)
    glyph = glyph.crop(glyph.getbbox())
    ratio = 54 / max(glyph.size)
    glyph = glyph.resize(
        (max(1, round(glyph.width * ratio)), max(1, round(glyph.height * ratio))), Image.Resampling.LANCZOS
    )
    canvas = Image.new("L", (CELL, CELL))
    canvas.paste(glyph, ((CELL - glyph.width) // 2, (CELL - glyph.height) // 2))
    rim = canvas.filter(ImageFilter.MaxFilter(5))
    outside = rim.point(lambda value: 255 if value > 100 else 0)
    ImageDraw.floodfill(outside, (0, 0), 128)
    hole = np.asarray(outside) == 0
    core, alpha = np.asarray(canvas, np.float32) / 255, np.asarray(rim, np.float32) / 255
    if style == 0:
        alpha = np.maximum(alpha, hole)
        luminance = np.where(hole, core * 0.5 + (1 - core) * 0.95, core * 0.5)
    else:
        luminance = core * 0.5 + (1 - core)
    shading = core * np.linspace(0.12, -0.12, CELL, dtype=np.float32)[:, None]
    return np.stack([np.clip(luminance + shading, 0, 1), alpha])


def character(font_folder: Path, name: str, char: str) -> np.ndarray:
    """[64, 64] alpha of one character, its advance centred."""
    font = ImageFont.truetype(str(font_folder / name), 60)
    cell = Image.new("L", (CELL, CELL))
    ImageDraw.Draw(cell).text((CELL / 2, BASELINE), char, fill=255, font=font, anchor="ms")
    return np.asarray(cell, np.float32) / 255


def photograph(folder: Path, name: str) -> Image.Image:
    """The middle of a photograph, 4:3, at 640x480."""
    image = Image.open(folder / SOURCES.get(name, f"{name}.png")).convert("RGB")
    width, height = image.size
    inner = (min(width, height * 4 // 3), min(height, width * 3 // 4))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    return image.crop((left, top, left + inner[0], top + inner[1])).resize((640, 480), Image.Resampling.LANCZOS)


def main() -> None:
    import matplotlib
    import skimage

    fonts = Path(matplotlib.get_data_path()) / "fonts/ttf"
    shapes = np.stack([[pictogram(fonts, code, style) for style in (0, 1)] for code in GLYPHS.values()])
    letters = np.stack(
        [[character(fonts, name, c) for name in ("DejaVuSansMono-Bold.ttf", "DejaVuSansMono.ttf")] for c in ALPHABET]
    )
    ASSETS.mkdir(exist_ok=True)
    np.savez_compressed(
        ASSETS / "sprites.npz", shapes=np.uint8(shapes * 255 + 0.5), letters=np.uint8(letters * 255 + 0.5)
    )
    for name in {name for names in PHOTOS.values() for name in names}:
        photograph(Path(skimage.__file__).parent / "data", name).save(ASSETS / f"{name}.jpg", quality=82, optimize=True)
    sprites.cache_clear()
    render(demo_scene()).image.save(DEMO, quality=90)


if __name__ == "__main__":
    main()
