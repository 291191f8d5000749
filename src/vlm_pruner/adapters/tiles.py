"""Families that send a picture as one or several squares of equal size: every encoded square is h x h tokens.

How the squares of one picture lie next to each other is not in the inputs of these models (it was decided by the
processor, and at most written into the prompt as text). So a place means the square (t), then row and column inside it.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, Modality, plane, raster, square_side
from vlm_pruner.adapters.llava import clip_or_siglip
from vlm_pruner.adapters.towers import Squares, Tower

__all__ = [
    "Chameleon",
    "FastVlm",
    "Gemma3n",
    "GraniteDocling",
    "Llama4",
    "OneSquare",
    "PaliGemma",
    "SampleSquares",
    "SharedKeys",
    "Step3p7",
    "TileRun",
    "UnlimitedOcr",
]


class OneSquare(Adapter):
    """One square per picture. Gemma 3's pan-and-scan crops stand apart in the prompt: each is a picture of its own."""

    model_types: ClassVar[tuple[str, ...]] = (
        "gemma3",
        "shieldgemma2",
        "deepseek_vl",
        "deepseek_vl_hybrid",
        "janus",
    )

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        sides = [square_side(n, config.model_type) for n in encoded.lengths or []]
        return [raster(1, side, side) for side in sides]

    def tower(self, base: Any) -> Tower | None:
        config = base.config
        if config.model_type == "paligemma":
            return clip_or_siglip(base)
        if config.model_type != "gemma3":
            return None
        patches = config.vision_config.image_size // config.vision_config.patch_size
        return clip_or_siglip(base, patches // math.isqrt(config.mm_tokens_per_image))

    def fixed_tokens(self, config: Any) -> int | None:
        per_picture: int | None = getattr(config, "mm_tokens_per_image", None)
        if per_picture is None and config.model_type == "paligemma":
            per_picture = int((config.vision_config.image_size // config.vision_config.patch_size) ** 2)
        return per_picture


class SharedKeys:
    """Gemma 3n and 4: late layers read the keys of the last layer of their kind that has its own, and all of them get a
    part of what was embedded of the token itself."""

    per_token = frozenset({"per_layer_input"})
    handed_on = frozenset({"shared_kv_states"})
    shares = True

    def source(self, config: Any, index: int) -> int:
        own = len(config.layer_types) - (getattr(config, "num_kv_shared_layers", 0) or 0)
        if index < own:
            return index
        kind = config.layer_types[index]
        return max(i for i, other in enumerate(config.layer_types[:own]) if other == kind)


class Gemma3n(SharedKeys, OneSquare):
    """One square per picture; four residual streams, which methods see side by side."""

    model_types = ("gemma3n",)
    streams = 0

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # convolutions


class Llama4(OneSquare):
    """The tiles of a picture and the whole of it, with marks between them: each has its own budget."""

    model_types = ("llama4",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        vision = config.vision_config
        side = math.isqrt(round((vision.image_size // vision.patch_size) ** 2 * vision.pixel_shuffle_ratio**2))
        return [raster(1, side, side)] * encoded.pixel_shape[0]

    def query_scale(self, attention: Any, places: Tensor) -> Tensor | None:
        if getattr(attention, "use_rope", True) or not getattr(attention, "attn_temperature_tuning", False):
            return None
        steps = torch.floor((places.float() + 1.0) / attention.floor_scale)
        scale: Tensor = torch.log1p(steps) * attention.attn_scale + 1.0
        return scale

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # its tokens are shuffled from several patches


class PaliGemma(OneSquare):
    """One square per picture."""

    model_types = ("paligemma",)

    def prompt(self, token: str, images: int, question: str) -> str | None:
        return token * images + question  # its processor puts the start of a text and a line end where they belong


class FastVlm(Adapter):
    """The map of a convolutional tower, row by row: it takes pictures that are no squares, too."""

    model_types = ("fast_vlm",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return [raster(1, *_alike(n, encoded.pixel_shape)) for n in encoded.lengths or []]


class Chameleon(Adapter):
    """Words of a codebook, row by row; the placeholder stands in the vocabulary only."""

    model_types = ("chameleon",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        cell = 2 ** (len(config.vq_config.channel_multiplier) - 1)
        height, width = encoded.pixel_shape[-2:]
        return [raster(1, height // cell, width // cell)] * len(encoded.lengths or [])

    def placeholders(self, config: Any) -> dict[Modality, int]:
        words = config.vocabulary_map or {}
        return {"image": words["<image>"]} if "<image>" in words else {}


class TileRun(OneSquare):
    """The tiles of a picture follow each other without text between them, thumbnail included: an unbroken run of
    placeholders is one picture of `t` squares with one budget."""

    model_types = (
        "internvl",
        "aya_vision",
        "cohere2_vision",
        "got_ocr2",
        "pp_chart2table",
        "qianfan_ocr",
        "ovis2",
        "perception_lm",
    )
    joins = True

    def tower(self, base: Any) -> Tower | None:
        if base.config.model_type != "internvl":
            return None
        return Squares(base.vision_tower, round(1 / base.config.downsample_ratio))


class Step3p7(Adapter):
    """Crops of a picture, each a square, then the whole picture in a larger square; one budget for all of them."""

    model_types = ("step3p7",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        whole = encoded.pixel_shape[-1] // config.vision_config.patch_size
        for _ in range(2):
            whole = -(-whole // 2)  # two convolutions of stride 2
        crops = encoded.arguments.get("num_local_patches")
        counts = [0] * len(encoded.lengths or []) if crops is None else [int(n) for n in crops]
        return [self._squares(n, crops, whole) for n, crops in zip(encoded.lengths or [], counts, strict=True)]

    def _squares(self, tokens: int, crops: int, whole: int) -> Layout:
        side = square_side((tokens - whole**2) // crops, "step3p7") if crops else 0
        last = plane(1, whole, whole) + torch.tensor([float(crops), 0.0, 0.0])
        place = torch.cat([plane(crops, side, side), last])
        return Layout(tokens, (crops + 1, max(side, whole), max(side, whole)), place)


class UnlimitedOcr(Adapter):
    """The tiles of a picture as one plane, then the whole of it in a square; a token closes every row, and one the
    picture. What is generated sees the whole prompt and a window."""

    model_types = ("unlimited_ocr",)
    attends = frozenset({"reference_sliding_attention"})
    behind = True

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        whole = encoded.pixel_shape[-1] // (config.vision_config.sam_config.patch_size * 4)  # two steps of stride 2
        grids, crops = encoded.rows("patches_grid"), encoded.arguments["num_local_patches"]
        parts = zip(encoded.lengths or [], grids, crops, strict=True)
        return [
            self._planes(n - whole * (whole + 1) - 1, grid if int(count) else [0, 0], whole) for n, grid, count in parts
        ]

    def _planes(self, tokens: int, tiles: list[int], whole: int) -> Layout:
        """`tokens` of the plane of `tiles` (columns, rows), then the whole picture and a token in its last corner."""
        columns, rows = tiles
        side = next((n for n in range(1, tokens) if rows * n * (columns * n + 1) == tokens), 0)
        sizes = [(h, w) for h, w in ((rows * side, columns * side), (whole, whole)) if h]
        squares = [closed_rows(number, *size) for number, size in enumerate(sizes)]
        place = torch.cat([*squares, torch.tensor([[len(sizes) - 1.0, whole - 0.5, whole - 0.5]])])
        rows, columns = (max(sides) for sides in zip(*sizes, strict=True))
        return Layout(len(place), (len(sizes), rows, columns), place)

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # two towers behind each other


class SampleSquares(Adapter):
    """Features come grouped by sample, without the pictures that only pad the batch. Text stands between the squares of
    a picture (Idefics3, SmolVLM): each has a budget of its own. The tower takes squares of any size."""

    model_types: ClassVar[tuple[str, ...]] = ("idefics3", "smolvlm")

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        side = self._side(config, *encoded.pixel_shape[-2:])
        return [raster(1, side, side)] * (sum(encoded.lengths or []) // side**2)

    def tower(self, base: Any) -> Tower | None:
        return Squares(base.vision_model, self._scale(base.config), half=True)

    def fixed_tokens(self, config: Any) -> int | None:
        size = config.vision_config.image_size
        return self._side(config, size, size) ** 2

    def _side(self, config: Any, height: int, width: int) -> int:
        patch = config.vision_config.patch_size
        return math.isqrt((height // patch) * (width // patch)) // self._scale(config)

    def _scale(self, config: Any) -> int:
        return int(config.scale_factor)


class GraniteDocling(SampleSquares):
    """As Idefics3; the route for dense pages makes squares with twice as many tokens a side."""

    model_types = ("granite_docling",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        fine = encoded.arguments.get("tile_fine_mask") is not None
        side = self._side(config, *encoded.pixel_shape[-2:]) * (2 if fine else 1)
        return [raster(1, side, side)] * (sum(encoded.lengths or []) // side**2)

    def fixed_tokens(self, config: Any) -> int | None:
        return None

    def tower(self, base: Any) -> Tower | None:
        return None

    def _scale(self, config: Any) -> int:
        return int(config.vision_config.scale_factor)


def closed_rows(square: int, h: int, w: int) -> Tensor:
    """[h (w + 1), 3] places of h rows of w tokens, each closed by one on the right edge."""
    place = plane(1, h, w + 1)
    place[:, 0] = square
    place[:, 2] = torch.where(place[:, 2] == w, w - 0.5, place[:, 2])
    return place


def _alike(tokens: int, pixels: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of `tokens` in the proportion that is nearest to that of the pixels [..., height, width]."""
    wanted = math.log(pixels[-2] / pixels[-1])
    rows = (h for h in range(1, tokens + 1) if tokens % h == 0)
    h = min(rows, key=lambda h: abs(math.log(h * h / tokens) - wanted))
    return h, tokens // h
