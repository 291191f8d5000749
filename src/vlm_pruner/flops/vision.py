"""The vision tower, whole or on some of its patches, and the projector behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlm_pruner.config_fields import first as _first
from vlm_pruner.config_fields import required as _required
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["ProjectorShape", "VisionShape", "projector_flops", "vision_flops"]


@dataclass(frozen=True)
class VisionShape:
    """The widths of a vision transformer that decide its cost."""

    layers: int
    hidden: int
    intermediate: int
    patch_values: int  # numbers in one patch: channels * frames * side * side
    patch_size: int
    extra_tokens: int = 0  # CLS
    gated: bool = False
    window: int = 0  # side of an attention window in patches, 0 = every layer attends to its whole frame
    full_layers: frozenset[int] = frozenset()  # with windows: layers that attend to the whole frame

    @classmethod
    def from_config(cls, config: Any, *, extra_tokens: int | None = None, gated: bool | None = None) -> VisionShape:
        """Shape of a transformers vision config.

        A config does not say outright whether the tower has a CLS row or a gated MLP: fields that only towers with a
        CLS row carry (`projection_dim`, `use_mean_pooling`) and the `silu` activation decide. Pass the truth where
        that is wrong. The pooling head of a SigLIP tower, which no language model reads, is left out.

        Raises:
            UnsupportedModelError: a field is missing.
        """
        hidden = _required(config, "embed_dim", "hidden_size")
        side, merge = _side(_first(config, "patch_size", default=0)), _first(config, "spatial_merge_size", default=1)
        if not side:
            raise UnsupportedModelError(f"{type(config).__name__} has no patch_size")
        frames = _first(config, "temporal_patch_size", default=1)
        channels = _first(config, "in_channels", "num_channels", default=3)
        if extra_tokens is None:
            cls_row = _first(config, "projection_dim", "use_mean_pooling") is not None
            extra_tokens = int(cls_row and not hasattr(config, "vision_use_head"))
        window = _first(config, "window_size", default=0) // (side * merge) * merge
        return cls(
            layers=_required(config, "depth", "num_hidden_layers"),
            hidden=hidden,
            intermediate=int(_first(config, "intermediate_size", default=0) or hidden * _required(config, "mlp_ratio")),
            patch_values=channels * frames * side * side,
            patch_size=side,
            extra_tokens=extra_tokens,
            gated=_first(config, "hidden_act") == "silu" if gated is None else gated,
            window=window,
            full_layers=frozenset(_first(config, "fullatt_block_indexes", default=())),
        )


def _side(patch_size: int | Sequence[int]) -> int:
    return int(patch_size) if isinstance(patch_size, int) else int(patch_size[0])


def _window_pairs(height: int, width: int, window: int) -> int:
    """Token pairs inside the windows of one frame; windows at the lower and right edge are cut off."""

    def squares(size: int) -> int:
        return size // window * window**2 + (size % window) ** 2

    return squares(height) * squares(width)


def vision_flops(
    shape: VisionShape, grid: tuple[int, int, int], kept: Sequence[int] | None = None, side: int = 1
) -> int:
    """FLOPs of the vision tower on one image, tile or video of (t, h, w) patches, before any merging.

    Frames attend to themselves only.

    Args:
        kept: raster numbers of the squares of `side` x `side` patches that enter it, all of which are embedded at
            first; None = all.
    """
    t, h, w = grid
    patches = t * h * w
    frames, windows = [h * w] * t, t * _window_pairs(h, w, shape.window or 1)
    if kept is not None:
        frames, windows = _left(kept, (h // side, w // side), side, shape.window // side)
    rows = sum(frames) + t * shape.extra_tokens
    token = 8 * shape.hidden**2 + (6 if shape.gated else 4) * shape.hidden * shape.intermediate
    whole = len(shape.full_layers) if shape.window else shape.layers
    pairs = whole * sum((frame + shape.extra_tokens) ** 2 for frame in frames) + (shape.layers - whole) * windows
    return 2 * patches * shape.patch_values * shape.hidden + shape.layers * rows * token + 4 * shape.hidden * pairs


def _left(kept: Sequence[int], size: tuple[int, int], side: int, window: int) -> tuple[list[int], int]:
    """Patches that are left of every frame, and token pairs inside the windows; all in squares of `side`."""
    h, w = size
    frames = Counter(square // (h * w) for square in kept)
    step = window or max(h, w)
    windows = Counter((square // (h * w), square // w % h // step, square % w // step) for square in kept)
    return [n * side**2 for n in frames.values()], sum((n * side**2) ** 2 for n in windows.values())


@dataclass(frozen=True)
class ProjectorShape:
    """Linear layers between the vision tower and the language model, applied to each group of `merge` patches."""

    linears: tuple[tuple[int, int], ...]  # (in, out)
    merge: int = 1  # patches that become one visual token
    copies: int = 1  # further mergers of the same size on intermediate layers

    @classmethod
    def from_config(cls, config: Any) -> ProjectorShape:
        """Shape of the projector of a transformers vision-language config.

        Raises:
            UnsupportedModelError: a field is missing.
        """
        vision, text = _first(config, "vision_config"), _first(config, "text_config")
        if vision is None or text is None:
            raise UnsupportedModelError(f"{type(config).__name__} has no vision_config and text_config")
        width, out = _required(vision, "embed_dim", "hidden_size"), _required(text, "hidden_size")
        if (side := _first(vision, "spatial_merge_size", default=1)) > 1:
            wide = width * side**2
            copies = 1 + len(_first(vision, "deepstack_visual_indexes", default=()))
            return cls(((wide, wide), (wide, out)), side**2, copies)
        if (ratio := _first(config, "downsample_ratio")) is not None:
            merge = round(1 / ratio) ** 2
            return cls(((width * merge, out), (out, out)), merge)
        if (scale := _first(config, "scale_factor")) is not None:
            return cls(((width * scale**2, out),), scale**2)
        if (pooled := _first(config, "mm_tokens_per_image")) is not None:
            patches = (vision.image_size // _side(vision.patch_size)) ** 2
            return cls(((width, out),), patches // pooled)
        if _first(vision, "projection_dim") == out and hasattr(vision, "vision_use_head"):
            return cls(((width, out),))
        layers = _first(config, "vision_feature_layer", default=-1)
        return cls(((width * (1 if isinstance(layers, int) else len(layers)), out), (out, out)))


def projector_flops(shape: ProjectorShape, patches: int) -> int:
    """FLOPs of projecting `patches` rows of the vision tower into `patches // merge` visual tokens."""
    return 2 * shape.copies * (patches // shape.merge) * sum(a * b for a, b in shape.linears)
