"""What a processor shows of a picture, read from the pixels that it makes of pictures whose colours say where they are.

Processors crop the middle, pad to a square, squeeze, or cut a picture into tiles, each by rules of its own that
change with its settings and its release. So none of them is written down here: the processor is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vlm_pruner.viz.patches import pixels_of

__all__ = ["See", "Window", "image_window", "seen_windows"]

See = Callable[[Image.Image], Sequence[Any]]
"""The pixels that a model is given for a picture: tensors or arrays [..., 3, H, W], in the order of their tokens."""

Values = NDArray[Any]


class Window(NamedTuple):
    """A rectangle in pixels of the original image; a padded image has a window larger than itself."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Window:
        """All of an image of `size` (width, height)."""
        return cls(0.0, 0.0, float(size[0]), float(size[1]))


def image_window(processor: Any, size: tuple[int, int]) -> Window:
    """The part of an image of `size` (width, height) that a processor shows to the model in one plane of tokens.

    Where it sends a picture in several tiles, or as a list of patches, all of the image is in their plane.

    Args:
        processor: the whole processor or its image processor; None means the whole image.
    """
    facts = getattr(processor, "image_processor", processor)
    if facts is None:
        return Window.whole(size)
    windows = seen_windows(lambda image: pixels_of(facts(images=[image], return_tensors="pt")), size)
    return windows[0] if windows is not None and len(windows) == 1 else Window.whole(size)


def seen_windows(see: See, size: tuple[int, int]) -> list[Window] | None:
    """The window of every picture [3, H, W] that a model is given for an image of `size` (width, height).

    Black and white images tell padding from picture, and undo what is done to the values; a third one has its columns
    in red and its rows in green. Pictures that are all padding are left out.

    Returns:
        None where the pixels are no pictures: patches in a list, or words of a codebook.
    """
    black = _pictures(see(Image.new("RGB", size)))
    white = _pictures(see(Image.new("RGB", size, (255, 255, 255))))
    coded = _pictures(see(_code(size)))
    if black is None or white is None or coded is None:
        return None
    found = [_window(*three, size) for three in zip(black, white, coded, strict=True)]
    return [window for window in found if window is not None]


def _code(size: tuple[int, int]) -> Image.Image:
    """Red grows from left to right, green from top to bottom, both from 0 to 255."""
    across, down = (np.linspace(0, 255, length).round().astype(np.uint8) for length in size)
    red = Image.fromarray(across[None, :]).resize(size, Image.Resampling.NEAREST)
    green = Image.fromarray(down[:, None]).resize(size, Image.Resampling.NEAREST)
    return Image.merge("RGB", (red, green, Image.new("L", size, 255)))


def _pictures(pixels: Sequence[Any]) -> list[Values] | None:
    """Every [3, H, W]; None if there is something else."""
    arrays = [np.asarray(one.float() if isinstance(one, Tensor) else one) for one in pixels]  # NumPy has no bfloat16
    if any(a.ndim < 4 or a.shape[-3] != 3 or min(a.shape[-2:]) < 2 for a in arrays):
        return None
    return [picture for a in arrays for picture in a.reshape(-1, *a.shape[-3:])]


def _window(black: Values, white: Values, coded: Values, size: tuple[int, int]) -> Window | None:
    span = white.astype(np.float32) - black  # [3, H, W]
    there = np.abs(span).mean(0)  # [H, W]
    there = there > 0.5 * there.max() if there.any() else there > 0
    if not there.any():
        return None
    share = np.where(there, (coded - black) / np.where(there, span, 1.0), np.nan)  # [3, H, W] 0 to 1 over the image
    rows, columns = there.any(1), there.any(0)
    left, right = _edges(np.nanmean(share[0][rows][:, columns], 0), columns, size[0])
    top, bottom = _edges(np.nanmean(share[1][rows][:, columns], 1), rows, size[1])
    return Window(left, top, right, bottom)


def _edges(share: Values, there: Values, length: int) -> tuple[float, float]:
    """Where the edges of a picture lie on an image of `length` pixels.

    Args:
        share: of the image's length at every column (or row) that is not padding.
        there: [W] which of the columns these are.
    """
    places = there.nonzero()[0]
    first, count, total = int(places[0]), len(places), len(there)
    inner = slice(count // 8, count - count // 8)  # away from edges, which interpolation flattens
    if length < 8 or len(share[inner]) < 2:  # too few steps for a line: all of the image is taken to be there
        start, step = -first * length / count, length / count
    else:
        step, start = np.polyfit(places[inner] + 0.5, share[inner] * (length - 1) + 0.5, 1)
    near = 0.75 * abs(float(step))  # within a pixel of the model, the edge of the image is meant
    edges = (float(start), float(start + step * total))
    low, high = (next((e for e in (0.0, float(length)) if abs(e - edge) <= near), edge) for edge in edges)
    return low, high
