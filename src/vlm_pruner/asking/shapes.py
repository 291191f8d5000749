"""Shapes of pictures that a processor cannot take, or only with gigabytes of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from vlm_pruner.asking.colours import called
from vlm_pruner.asking.opening import MAX_PIXELS, check_size
from vlm_pruner.errors import InputError, first_line

__all__ = ["check_shape", "refusal"]


def check_shape(processor: Any, image: Image.Image) -> None:
    """Refuse a picture that is, or becomes on its way to the model, larger than what is read.

    A processor that brings the shorter side to a fixed length, or pads to a square, makes gigabytes of a thin picture
    before it crops or shrinks it.

    Raises:
        InputError: more than 64 megapixels, before or after that.
    """
    check_size(image)
    width, height = _grown(getattr(processor, "image_processor", processor), image.width, image.height)
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{called(image)} is too thin for this model: its processor makes "
            f"{width} x {height} = {width * height / 1e6:.0f} megapixels of it; at most {MAX_PIXELS / 1e6:.0f} are read"
        )


def _grown(facts: Any, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the largest picture that a processor makes of one on the way to its own size."""
    size = _numbers(getattr(facts, "size", None))
    if getattr(facts, "image_grid_pinpoints", None):
        return width, height
    square = max(width, height)
    if getattr(facts, "do_pad", None) and getattr(facts, "do_center_crop", None):
        return square, square
    extreme = getattr(facts, "_is_extreme_aspect", None)  # Step 3.7 pads these alone
    if extreme is not None and extreme(width, height):
        return square, square
    if not getattr(facts, "do_resize", True) or set(size) != {"shortest_edge"}:
        return width, height
    short = min(width, height)
    return size["shortest_edge"] * width // short, size["shortest_edge"] * height // short


def refusal(processor: Any, images: Sequence[Image.Image], error: Exception, videos: int = 0) -> InputError:
    """What to say where a processor has raised `error` for a question about these pictures and so many videos.

    Where a picture alone makes it fail, that one is named, with the limit on its shape if that is the reason.
    """
    facts = getattr(processor, "image_processor", processor)
    for image in images:
        try:
            facts(images=[image], return_tensors="pt")
        except Exception as own:
            longest = _numbers(getattr(facts, "size", None)).get("longest_edge")
            thin = longest is not None and max(image.size) > longest * min(image.size)
            why = f"one side may be at most {longest} times as long as the other" if thin else first_line(own)
            return InputError(f"the processor of this model refuses {called(image)}: {why}")
    shown = "a video" if videos else f"{len(images)} pictures" if len(images) > 1 else "a picture"
    what = f"a question with {shown}" if images or videos else "a question without a picture"
    return InputError(f"the processor of this model refuses {what}: {first_line(error)}")


def _numbers(size: Any) -> dict[str, int]:
    """A processor's size field, whichever of dict, `SizeDict` or int it is, as a plain dict without empty entries."""
    if size is None:
        return {}
    if isinstance(size, int):
        return {"shortest_edge": size}
    items = size.items() if isinstance(size, Mapping) else vars(size).items()
    return {key: int(value) for key, value in items if isinstance(value, int | float)}
