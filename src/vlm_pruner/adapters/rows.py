"""Families that write a picture row by row: HunyuanVL, Emu3, Apertus, Fuyu, Inkling, Molmo 2, Gemma 4."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, Modality, VisualSpan, plane, raster
from vlm_pruner.adapters.llava import chooses_itself
from vlm_pruner.adapters.llava_next import overview
from vlm_pruner.adapters.tiles import SharedKeys
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Apertus", "Emu3", "Fuyu", "Gemma4", "Hunyuan", "HyV4", "Inkling", "Molmo2", "pooled", "rows_with_ends"]


class Emu3(Adapter):
    """A token at the right edge closes every row of a picture; it can be chosen like any other."""

    model_types = ("emu3",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        cell = 2 ** (len(config.vq_config.channel_multiplier) - 1)
        return [rows_with_ends(h // cell, w // cell) for h, w in encoded.rows("image_sizes")]


class Apertus(Adapter):
    """Words of a codebook, row by row; a picture of any size."""

    model_types = ("apertus1p5",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        cell = 2 ** (len(config.vision_config.channel_multiplier) - 1)
        return [raster(1, h // cell, w // cell) for h, w in encoded.rows("image_sizes")]


class Fuyu(Adapter):
    """Rows of patches; a word of the prompt closes each row, and only these words tell how wide a picture is."""

    model_types = ("fuyu",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        raise UnsupportedModelError("fuyu: only the prompt tells how wide a picture is")

    def prompt(self, token: str, images: int, question: str) -> str | None:
        return question + "\n"  # its processor puts the picture and the start of a text in front

    def spans(self, config: Any, places: Tensor, modality: Modality) -> list[VisualSpan] | None:
        found: list[VisualSpan] = []
        for row, slots in enumerate(place.nonzero().flatten() for place in places):
            if not len(slots):
                continue
            pictures = slots.tensor_split((slots.diff() > 2).nonzero().flatten() + 1)  # one word between two rows
            found += [VisualSpan(row, i, modality, own, _rows(own), len(found) + i) for i, own in enumerate(pictures)]
        return found


def _rows(slots: Tensor) -> Layout:
    """Rows of one picture, with a place that is none of its own between two of them."""
    breaks = int((slots.diff() > 1).sum())
    if len(slots) % (breaks + 1):
        raise UnsupportedModelError(f"fuyu: {len(slots)} tokens are not {breaks + 1} rows of one length")
    return raster(1, breaks + 1, len(slots) // (breaks + 1))


class Inkling(Adapter):
    """Rows of patches; the last patch of a row is padded, and only the padding tells how wide a picture is. Where a
    side is a multiple of the patch, that one is nothing but padding. A learned bias goes by how far a query stands
    behind a key; short convolutions see what is left. Pictures only, with words between two of them."""

    model_types = ("inkling_mm_model",)
    attends = frozenset({"hybrid", "hybrid_sliding"})
    padding = frozenset({"conv_mask"})
    scaled = "q_norm"
    joins = True

    def told(self, pixels: Tensor) -> dict[str, Any]:
        corner = pixels[
            :, 0, 0, -1
        ]  # [n, 3] of patches [n, t, h, w, 3]: rows of a patch are padded at the bottom alone
        fill = corner[-1]  # the last patch ends a row
        ends = (corner == fill).all(-1)  # no pixel is as dark as padding, which is -1 of 0 to 255
        return {"row_ends": torch.cat([ends, (pixels >= fill).all()[None]])[None]}

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        *ends, padded = encoded.rows("row_ends")[0]
        if not padded:
            raise UnsupportedModelError(
                "inkling: the patches are not padded as by its own processor, so the width of a picture is unknown; "
                "use the processor of the checkpoint"
            )
        last = [i for i, end in enumerate(ends) if end]
        widths = [end - start for start, end in zip([-1, *last], last, strict=False)]
        return [replace(raster(1, 1, w), row=True) for w in widths]

    def query_scale(self, attention: Any, places: Tensor) -> Tensor | None:
        floor, share = attention.config.log_scaling_n_floor, attention.config.log_scaling_alpha
        if attention.is_sliding or floor is None:
            return None
        scale: Tensor = 1.0 + share * torch.log(((places + 1).float() / floor).clamp(min=1.0))
        return scale

    def distances(self, attention: Any) -> nn.Module | None:
        part: nn.Module = attention.rel_logits_proj
        return part

    def distance_bias(self, part: Any, states: Tensor, query: Tensor, key: Tensor) -> Tensor:
        profile = (states @ part.proj).transpose(1, 2)  # [b, heads, q, extent]
        distance = (query[:, :, None] - key[:, None])[:, None]  # [b, 1, q, k]
        at = distance.clamp(0, part.rel_extent - 1).expand(*profile.shape[:2], -1, -1)
        bias: Tensor = profile.gather(-1, at).masked_fill((distance < 0) | (distance >= part.rel_extent), 0.0)
        return bias

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # patches are folded, without attention


class Hunyuan(Adapter):
    """A token opens the picture, one closes every row, one closes the picture; they can be chosen like any other."""

    model_types = ("hunyuan_vl",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        merge = config.vision_config.spatial_merge_size
        sizes = [(h // merge, w // merge) for _, h, w in encoded.rows("image_grid_thw")]
        return [rows_with_ends(h, w, framed=True) for h, w in sizes]

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # all pictures in one sequence: its attention rows are not offered


class HyV4(Adapter):
    """A token at the right edge closes every row; it can be chosen like any other. Four residual streams, which
    methods see side by side; layers attend to keys that an indexer chose, its own or that of a layer before. Pictures
    only."""

    model_types = ("hy_v4_vl",)
    streams = 2
    handed_on = frozenset({"prev_topk_indices"})

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        merge = config.vision_config.spatial_merge_size
        return [rows_with_ends(h // merge, w // merge) for _, h, w in encoded.rows("image_grid_thw")]

    def allows(self, config: Any, site: int) -> bool:
        return chooses_itself(config, site)

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # all pictures in one sequence


class Molmo2(Adapter):
    """An overview spread over the plane, then the picture in full resolution; text closes the rows. Pictures only."""

    model_types = ("molmo2",)

    def placeholders(self, config: Any) -> dict[Modality, int]:
        return {"image": config.image_patch_id}

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        layouts = []
        for rows, columns, h, w in encoded.rows("image_grids"):
            if not h * w:
                raise UnsupportedModelError(
                    "molmo2: its prompts mark a video like a picture; pass the frames as pictures"
                )
            place = torch.cat([overview((rows, columns), (h, w)), plane(1, h, w)])
            layouts.append(Layout(len(place), (1, h, w), place))
        return layouts

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # tokens are pooled from several patches


class Gemma4(SharedKeys, Adapter):
    """The model gets the positions of the patches; squares of patches are pooled into one token."""

    model_types = ("gemma4", "gemma4_unified")
    ends = True

    def goes_on_alone(self, text: Any) -> bool:
        return hasattr(text, "_maybe_slice_kv_shared_inputs")  # releases before 5.23 run all rows

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return self._pooled(config, encoded, "image_position_ids")

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        frames = self._pooled(config, encoded, "video_position_ids")
        layouts, first = [], 0
        for count in (int(n) for n in encoded.arguments["num_frames_per_video"]):
            layouts.append(_behind(frames[first], count))
            first += count
        return layouts

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # tokens are pooled from several patches

    def _pooled(self, config: Any, encoded: Encoded, name: str) -> list[Layout]:
        """The layout of every picture or frame, from the (x, y) of its patches; padding is -1."""
        side = config.vision_config.pooling_kernel_size if config.model_type == "gemma4" else 1
        return [pooled(place, side) for place in encoded.arguments[name].cpu()]


def pooled(place: Tensor, side: int) -> Layout:
    """Squares of `side` x `side` patches, each one token; `place` [p, 2] is the (x, y) of the patches.

    Where the sides of a picture are no multiples of `side`, the model counts too few columns, so that the end of one
    row of squares and the start of the next are one token: it lies in the middle of its patches.
    """
    w, h = (place.amax(0) + 1).tolist()
    if w % side == 0 and h % side == 0:
        return raster(1, h // side, w // side)
    place = place[(place >= 0).all(1)]
    x, y = (place // side).unbind(1)
    _, token = (x + w // side * y).unique(return_inverse=True)
    sums = torch.zeros(int(token.max()) + 1, 3).index_add_(0, token, pad(place.flip(1).float(), (0, 1), value=1.0))
    middle = (sums[:, :2] / sums[:, 2:] + 0.5) / side - 0.5  # [n, 2] (y, x)
    return Layout(len(middle), (1, -(-h // side), -(-w // side)), pad(middle, (1, 0)))


def _behind(frame: Layout, count: int) -> Layout:
    """`count` frames alike, behind each other."""
    _, h, w = frame.grid
    if frame.position is None:
        return raster(count, h, w)
    place = frame.position.repeat(count, 1)
    place[:, 0] = torch.arange(count).repeat_interleave(frame.tokens)
    return Layout(len(place), (count, h, w), place)


def rows_with_ends(h: int, w: int, framed: bool = False) -> Layout:
    """h rows of w tokens and one that ends the row, on the right edge (x = w - 1/2). `framed`: with one token before
    everything and one behind it, in the first and the last corner."""
    y, x = torch.arange(h).repeat_interleave(w + 1), torch.arange(w + 1).repeat(h)
    place = torch.stack([torch.zeros(len(y)), y.float(), torch.where(x == w, w - 0.5, x.float())], 1)
    if framed:
        corners = torch.tensor([[0.0, -0.5, -0.5], [0.0, h - 0.5, w - 0.5]])
        place = torch.cat([corners[:1], place, corners[1:]])
    return Layout(len(place), (1, h, w), place)
