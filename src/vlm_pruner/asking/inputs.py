"""From what people type to what a model reads: image files."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from pathlib import Path

from PIL import Image, ImageOps

from vlm_pruner.errors import InputError

__all__ = ["DEMO_IMAGE", "check_size", "open_image"]

DEMO_IMAGE = "demo"
"""The name of the image inside the package, where no file is called that (a folder may be)."""

MAX_PIXELS = 64_000_000


def open_image(path: str | Path) -> Image.Image:
    """The first frame of an image file as upright RGB; "demo" is the image that comes with the package.

    Raises:
        InputError: no such file, not an image, a damaged one, or one of more than 64 megapixels.
    """
    file = Path(path)
    if str(path) == DEMO_IMAGE and not file.is_file():
        from vlm_pruner.scenes import DEMO

        file = DEMO
    if not file.exists():
        near = get_close_matches(file.name, [p.name for p in file.parent.glob("*")], n=1, cutoff=0.75)
        raise InputError(
            f"no image at {str(path)!r}" + (f"; did you mean {str(file.parent / near[0])!r}?" if near else "")
        )
    if file.is_dir():
        raise InputError(f"{str(path)!r} is a folder, not an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                check_size(image)
                return ImageOps.exif_transpose(image).convert("RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{str(path)!r} is too large: {error}") from error
    except Exception as error:  # Pillow's readers raise whatever their formats do: OSError, SyntaxError, struct.error
        raise InputError(f"{str(path)!r} is not a readable image: {error}") from error


def check_size(image: Image.Image) -> None:
    """Refuse an image that would take gigabytes to decode.

    Raises:
        InputError: more than 64 megapixels.
    """
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"the image has {image.width} x {image.height} = {image.width * image.height / 1e6:.0f} megapixels; "
            f"at most {MAX_PIXELS / 1e6:.0f} are read"
        )
