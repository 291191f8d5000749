"""Colours and type that everybody can read: viridis for order, Okabe and Ito's colours for regions."""

from __future__ import annotations

import functools

from PIL import ImageFont

__all__ = [
    "ACCENT",
    "INK",
    "MUTED",
    "PAPER",
    "REGIONS",
    "RGB",
    "font",
    "ink_on",
    "light",
    "order_colour",
    "plain",
    "viridis",
]

RGB = tuple[int, int, int]

PAPER: RGB = (255, 255, 255)
INK: RGB = (22, 27, 34)
MUTED: RGB = (96, 104, 114)
ACCENT: RGB = (0, 114, 178)

REGIONS: tuple[RGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
"""Okabe and Ito, "Color Universal Design" (2008), without black: distinct in all common kinds of colour blindness."""

_VIRIDIS: tuple[RGB, ...] = (
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
)


def viridis(share: float) -> RGB:
    """The viridis colour map at `share` in [0, 1], dark to bright, linear between nine of its own samples."""
    at = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    low = min(int(at), len(_VIRIDIS) - 2)
    a, b = _VIRIDIS[low], _VIRIDIS[low + 1]
    red, green, blue = (round(p + (q - p) * (at - low)) for p, q in zip(a, b, strict=True))
    return red, green, blue


def order_colour(rank: int, total: int) -> RGB:
    """The colour of the token selected as number `rank` (0-based) of `total`: bright first, never too dark to see."""
    return viridis(1.0 - 0.82 * rank / max(1, total - 1))


def ink_on(colour: RGB) -> RGB:
    """Black or white, whichever has the higher contrast on `colour` (WCAG 2 relative luminance)."""
    return (255, 255, 255) if light(colour) < 0.179 else (0, 0, 0)


def light(colour: RGB) -> float:
    """WCAG 2 relative luminance of an sRGB colour, 0 to 1."""
    red, green, blue = (c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The scalable face that Pillow carries, so that pictures look the same everywhere."""
    return ImageFont.load_default(size)


def plain(text: str) -> str:
    """`text` with the typographic signs that the built-in face lacks spelled in ASCII."""
    for sign, ascii_ in (("–", "-"), ("—", "-"), ("→", "->"), ("×", "x"), ("≥", ">="), ("≤", "<="), ("’", "'")):
        text = text.replace(sign, ascii_)
    return text
