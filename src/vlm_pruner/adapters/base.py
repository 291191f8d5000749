"""What a model family must say: its placeholder tokens, and where the tokens of one image or video lie."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vlm_pruner.adapters.towers import Tower
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Adapter", "Encoded", "Layout", "Modality", "VisualSpan", "plane", "raster"]

Modality = Literal["image", "video"]


@dataclass(frozen=True)
class Layout:
    """The n tokens of one image or video, in the order of their placeholders.

    `grid` is the plane they lie in, in tokens; without `position` they fill it in raster order.
    """

    tokens: int
    grid: tuple[int, int, int]  # (t, h, w)
    position: Tensor | None = None  # [n, 3] float32 (t, y, x), -1 = no place
    patch: Tensor | None = None  # [n] patch row of the vision tower behind each token, -1 = none; None = same order
    tiles: int = 1  # pictures that the vision tower saw of this one
    row: bool = False  # not more than one row of a picture, which goes on in what stands right behind it
    mixed: bool = False  # a token is interpolated between patches that lie around it

    def places(self, device: torch.device | str = "cpu") -> Tensor:
        """[n, 3] float32 (t, y, x) of every token."""
        if self.position is not None:
            return self.position.to(device, non_blocking=True)
        return plane(*self.grid, device)


@dataclass(frozen=True)
class Encoded:
    """What one `get_image_features` or `get_video_features` call was given and gave."""

    arguments: Mapping[str, Any]  # without the pixels
    pixel_shape: tuple[int, ...]
    lengths: list[int] | None  # tokens of each picture, where the model returns them one by one
    vision: Any = None  # signals of the vision tower, if a method asked for them
    tower: Any = None  # what was chosen before it, if anything was

    def rows(self, name: str) -> list[list[int]]:
        """A table argument (`image_sizes`, `image_grid_thw`) as host integers.

        Raises:
            UnsupportedModelError: the model was called without it.
        """
        value = self.arguments.get(name)
        if value is None:
            raise UnsupportedModelError(
                f"{name!r} is missing: it tells where the visual tokens are; pass it with the pixels"
            )
        return [[int(x) for x in row] for row in torch.as_tensor(value, device="cpu").tolist()]


@dataclass(frozen=True)
class VisualSpan:
    """The tokens of one image or video in one row of the batch."""

    row: int
    index: int  # number of this image among the images of its row
    modality: Modality
    slots: Tensor  # [n] places in the chunk that is being prefilled, ascending, on the host
    layout: Layout
    tile: int  # the first of its tiles among all that the vision tower saw
    copies: int = 1  # rows behind one another that show what was encoded once


class Adapter(ABC):
    """One model family. Subclasses hold data and layouts, never state."""

    model_types: ClassVar[tuple[str, ...]]
    per_token: ClassVar[frozenset[str]] = frozenset()  # further arguments [b, q, ...] of its decoder layers
    padding: ClassVar[frozenset[str]] = frozenset()  # arguments [b, q] or None that hide the padding of a chunk
    own_mask: ClassVar[bool] = False  # the mask of attention layers is such a one, too: they make their own
    whole_tables: ClassVar[bool] = False  # rotary tables reach over everything that is stored
    attends: ClassVar[frozenset[str]] = frozenset()  # kinds of attention layers of its own
    blocks: ClassVar[frozenset[str]] = frozenset()  # kinds that attend to blocks of keys, counted by position ids
    scaled: ClassVar[str] = "q_proj"  # part of an attention module behind which `query_scale` can be set right
    handed_on: ClassVar[frozenset[str]] = frozenset()  # containers that layers fill and none of them reads
    closing: ClassVar[int] = 0  # tokens behind the last placeholder without which the model cannot number a picture
    canvas: ClassVar[bool] = False  # pictures are numbered together with the marks around them
    behind: ClassVar[bool] = False  # a prompt sees all of itself, what comes behind it a window of that, too
    joins: ClassVar[bool] = False  # tiles that follow each other without text between them are one picture
    streams: ClassVar[int | None] = None  # axis of several residual streams in what its decoder layers hand on
    adds: ClassVar[tuple[str, str] | None] = None  # arguments of the decoder: features by layer, mask of their places
    shares: ClassVar[bool] = False  # decoder layers that read the keys of earlier ones are known to `source`
    ends: ClassVar[bool] = False  # from the first of those on, only the rows may go on whose logits are asked for

    def placeholders(self, config: Any) -> dict[Modality, int]:
        """Token id that stands for visual tokens, by modality."""
        found: dict[Modality, int] = {}
        modalities: tuple[Modality, ...] = ("image", "video")
        for modality in modalities:
            token = getattr(config, f"{modality}_token_id", None)
            if token is None:
                token = getattr(config, f"{modality}_token_index", None)
            if token is not None:
                found[modality] = token
        return found

    def takes_videos(self, config: Any) -> bool:
        """Do videos have a placeholder and a layout of their own?"""
        return "video" in self.placeholders(config) and type(self).video_layouts is not Adapter.video_layouts

    def goes_on_alone(self, text: Any) -> bool:
        """Does the decoder `text` of this release do what `ends` says it may?"""
        return False

    @abstractmethod
    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        """The layout of every image, in the order in which they were encoded."""

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        """The layout of every video."""
        raise UnsupportedModelError(f"videos are not supported for {config.model_type}")

    def spans(self, config: Any, places: Tensor, modality: Modality) -> list[VisualSpan] | None:
        """The pictures of a prompt whose rows are seen in the prompt alone; None = as the layouts say.

        Args:
            places: [b, q] bool on the host, True at the placeholders of this modality.
        """
        return None

    def source(self, config: Any, index: int) -> int:
        """The decoder layer whose keys layer `index` reads: itself, or an earlier one.

        Args:
            config: of the decoder.
        """
        return index

    def allows(self, config: Any, site: int) -> bool:
        """Does no decoder layer at or behind `site` go by keys that one in front of it chose by their places?

        Args:
            config: of the decoder.
        """
        return True

    def filling(self, config: Any) -> int | None:
        """What `per_token` arguments hold in front of a row that is padded; None where nothing reads it.

        Args:
            config: of the decoder.
        """
        return None

    def counting(self, attention: Any) -> nn.Module | None:
        """The part of an attention module that asks the cache how many entries it holds; None = none does."""
        return None

    def query_scale(self, attention: Any, places: Tensor) -> Tensor | None:
        """What an attention module multiplies its queries at `places` [b, q] with, [b, q] float32, where it counts the
        places itself; None where it does not."""
        return None

    def fixed_tokens(self, config: Any) -> int | None:
        """Tokens of an image where all images have the same number, else None."""
        return None

    def prompt(self, token: str, images: int, question: str) -> str | None:
        """A question about `images` pictures, for checkpoints without a chat template; None = no form is known.

        Args:
            token: the placeholder of a picture.
        """
        return None

    def tower(self, base: Any) -> Tower | None:
        """The vision tower of a model, where it can be run on some of its patches alone; else None."""
        return None

    def told(self, pixels: Tensor) -> dict[str, Any]:
        """What the pixels themselves tell of the layouts, as further arguments of the call that encodes them."""
        return {}

    def distances(self, attention: Any) -> nn.Module | None:
        """The part of an attention module that makes a bias of how far queries stand behind keys, called with what it
        makes it of and the places of both, which the attention module counts itself; None where nothing does."""
        return None

    def distance_bias(self, part: Any, states: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """What that part makes, [b, heads, q, k], of places [b, q] and [b, k] that each row has of its own."""
        raise NotImplementedError

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        """The encoder whose attention rows and keys can be asked for, if it has the CLIP or SigLIP shape."""
        tower = getattr(base, "vision_tower", None)
        return tower if isinstance(tower, nn.Module) else None

    def video_tower(self, base: nn.Module) -> nn.Module | None:
        """The same for the frames of videos, where another encoder reads these."""
        return self.vision_tower(base)


def plane(t: int, h: int, w: int, device: torch.device | str = "cpu") -> Tensor:
    """[t h w, 3] float32 (t, y, x) in raster order."""
    sides = (torch.arange(side, dtype=torch.float32, device=device) for side in (t, h, w))
    return torch.cartesian_prod(*sides)


def raster(t: int, h: int, w: int) -> Layout:
    """t frames of h x w tokens, row by row."""
    return Layout(t * h * w, (t, h, w))


def square_side(tokens: int, what: str) -> int:
    """Side of a square grid of `tokens`.

    Raises:
        UnsupportedModelError: not a square number.
    """
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise UnsupportedModelError(f"{what}: {tokens} tokens are not a square grid")
    return side
