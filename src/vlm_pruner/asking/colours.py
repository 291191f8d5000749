"""Any picture as upright 8-bit RGB that looks as an image viewer shows it: depths, transparency, colour profiles.

Pillow's own `convert` clips what is deeper than 8 bits, drops transparency and ignores profiles. The work is done in
strips, so that a large picture is never in memory three times.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

__all__ = ["as_shown", "called", "notes_of", "with_notes"]

STRIP = 2_000_000  # pixels that are converted at a time
DEPTHS = (8, 10, 12, 16, 24, 31, 32)  # bits of integer samples; 14 would make dark pictures of 16 bits bright
WHITE = (255, 255, 255)
_ORIENTATION = 0x0112  # EXIF
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_PHOTOMETRIC, _BITS, _FORMAT = 262, 258, 339  # TIFF
_LOWEST, _HIGHEST = (340, 280), (341, 281)  # TIFF: S(Min|Max)SampleValue, (Min|Max)SampleValue

Values = NDArray[Any]


def called(image: Image.Image) -> str:
    """How a message speaks of a picture: "'cup.png' (600 x 400 pixels)", without a name where it comes from no file."""
    size, name = f"{image.width} x {image.height} pixels", image.info.get("name") or getattr(image, "filename", "")
    return f"{Path(name).name!r} ({size})" if name else f"the picture of {size}"


def notes_of(image: Image.Image) -> tuple[str, ...]:
    """What was done to a picture that a person may not expect, a sentence each."""
    return tuple(image.info.get("notes", ()))


def with_notes(image: Image.Image, *notes: str) -> Image.Image:
    """The picture itself, with these notes behind those it has."""
    image.info["notes"] = (*notes_of(image), *notes)
    return image


def as_shown(image: Image.Image, key: int | tuple[int, ...] | None = None) -> Image.Image:
    """A picture as upright RGB, as an image viewer shows it; one that is that already is returned as it is.

    - Samples deeper than 8 bits are scaled, never clipped. The range is the file's own where it names one (TIFF: sample
      values, bits); else the smallest of 8, 10, 12, 16, 24 and 32 bits that holds the brightest sample. Floats reach to
      1, or to their highest up to 16, or count as integers. Where samples are negative, from the lowest to the highest.
    - Transparency is composed on white.
    - An embedded profile is applied with the intent that it names. CMYK without one is (1 - c)(1 - k), as in browsers.

    Args:
        key: the sample value that is transparent, in the file's own depth; `image.info["transparency"]` by default.

    Source: PNG (W3C, third edition) 11.3.1.1 and 12.4; TIFF 6.0 (Adobe 1992), section 8; ICC.1:2022.
    """
    deep, notes = _Depth.of(image) if image.mode in _DEEP else (None, [])
    colours, problems = _colours(image.info.get("icc_profile"))
    key = image.info.get("transparency") if key is None else key
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and key is None and not image.info.get("icc_profile"):
        return image
    done = Image.new("RGB", image.size)
    for top, part in _strips(image):
        done.paste(_flat(part, deep, colours, key), (0, top))
    return with_notes(done, *notes, *problems)


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, STRIP // max(1, image.width))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


@dataclass(frozen=True)
class _Depth:
    """Samples from `low` to `high` become 0 to 255, or 255 to 0 where the file counts from white."""

    low: float
    high: float
    unsigned: bool  # 32 bits that Pillow reads as signed ones
    inverted: bool

    @classmethod
    def of(cls, image: Image.Image) -> tuple[_Depth, list[str]]:
        """The range of a picture, and what to say of it."""
        tags = getattr(image, "tag_v2", {})
        unsigned = image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_FORMAT, (1,)) == (1,)
        own = cls(0, 1, unsigned, tags.get(_PHOTOMETRIC) == 0)
        lowest, highest = own._reach(image)
        named = _named(tags, lowest, highest)
        if named is None and image.mode.startswith("I;16") and tags.get(_BITS, (16,))[0] < 16:
            named = 0.0, 2.0 ** tags[_BITS][0] - 1
        if named is None and image.format == "PPM":  # Pillow has scaled it by what the file says
            named = (0.0, 65535.0) if image.mode == "I" else None
        low, high = named or _usual(lowest, highest, image.mode)
        said = f"its samples reach from {lowest:g} to {highest:g}: shown by the range from {low:g} to {high:g}"
        known = named or high == (1 if image.mode == "F" else 65535)
        return cls(low, high, unsigned, own.inverted), [] if known else [said]

    def values(self, part: Image.Image) -> Values:
        """[h, w] samples; of floats, what is no number counts as the lowest."""
        samples = np.asarray(part)
        if self.unsigned:
            return samples.view(np.uint32)
        return samples

    def grey(self, samples: Values) -> Image.Image:
        """Samples as a grey picture."""
        share = (samples.astype(np.float64) - self.low) / ((self.high - self.low) or 1.0)
        share = np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
        share = 1.0 - share if self.inverted else share
        return Image.fromarray((share * 255 + 0.5).astype(np.uint8))

    def _reach(self, image: Image.Image) -> tuple[float, float]:
        """The lowest and the highest finite sample."""
        lowest, highest = np.inf, -np.inf
        for _, part in _strips(image):
            samples = self.values(part)
            samples = samples[np.isfinite(samples)] if samples.dtype.kind == "f" else samples
            if samples.size:
                lowest, highest = min(lowest, float(samples.min())), max(highest, float(samples.max()))
        return (lowest, highest) if lowest <= highest else (0.0, 0.0)


def _named(tags: Any, lowest: float, highest: float) -> tuple[float, float] | None:
    """The range that a TIFF file names, if its samples keep to it."""
    found = []
    for names, default in ((_LOWEST, 0.0), (_HIGHEST, None)):
        value = next((tags[name] for name in names if name in tags), default)
        value = value[0] if isinstance(value, tuple) and value else value
        if not isinstance(value, int | float):
            return None
        found.append(float(value))
    low, high = found
    return (low, high) if low <= lowest and highest <= high and low < high else None


def _usual(lowest: float, highest: float, mode: str) -> tuple[float, float]:
    if lowest < 0:
        return lowest, highest
    if mode == "F" and highest <= 16:
        return 0.0, max(1.0, highest)
    return 0.0, next((2.0**bits - 1 for bits in DEPTHS if highest < 2.0**bits), highest)


def _flat(
    part: Image.Image,
    deep: _Depth | None,
    colours: Callable[[Image.Image], Image.Image],
    key: Any,
) -> Image.Image:
    """A strip as RGB on white."""
    alpha = None
    if deep is not None:
        samples = deep.values(part)
        alpha = None if key is None else _unlike(samples[..., None], key)
        part = deep.grey(samples)
    elif key is not None and part.mode in ("1", "L", "RGB"):
        alpha = _unlike(np.asarray(part.convert("L") if part.mode == "1" else part), key)
        part.info.pop("transparency", None)
    elif part.has_transparency_data:
        part = part.convert({"La": "LA", "P": "RGBA", "PA": "RGBA", "RGBa": "RGBA"}.get(part.mode, part.mode))
        alpha = part.getchannel("A")
        part = part.convert("L" if part.mode == "LA" else "RGB")
    shown = colours(part)
    if alpha is None:
        return shown
    page = Image.new("RGB", part.size, WHITE)
    page.paste(shown, mask=alpha)
    return page


def _unlike(samples: Values, key: int | tuple[int, ...]) -> Image.Image:
    """255 where a pixel is not of the transparent colour; samples are [h, w] or [h, w, channels]."""
    samples = samples if samples.ndim == 3 else samples[..., None]
    return Image.fromarray(np.where((samples == np.atleast_1d(key)).all(-1), 0, 255).astype(np.uint8))


_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


def _colours(profile: bytes | None) -> tuple[Callable[[Image.Image], Image.Image], list[str]]:
    """From a picture without transparency to sRGB, by its profile where there is one that is of its kind."""
    if not profile:
        return _plain, []
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES.get(source.profile.xcolor_space.strip())
        if mode is None:
            return _plain, []
        intent = ImageCms.Intent(source.profile.rendering_intent)
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB", renderingIntent=intent)
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError) as error:
        return _plain, [f"its colour profile cannot be used ({error}) and was left out"]
    return partial(_profiled, mode=mode, transform=transform), []


def _profiled(part: Image.Image, mode: str, transform: Any) -> Image.Image:
    """`part` by a profile for `mode`; a profile of another kind of picture is left out, as viewers do."""
    grey = part.mode in ("1", "L")
    if mode == "L" and grey:
        ready = part.convert("L")
    elif mode == "RGB" and part.mode not in ("CMYK", "LAB"):
        ready = _plain(part)
    elif mode == part.mode:
        ready = part
    else:
        return _plain(part)
    shown = ImageCms.applyTransform(ready, transform)
    assert shown is not None
    return shown


def _plain(part: Image.Image) -> Image.Image:
    return part.convert("RGB")
