"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and others built like them: any size, 2 x 2 patches merged into one token."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, raster
from vlm_pruner.adapters.llava import chooses_itself
from vlm_pruner.adapters.towers import Packed, Tower
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Ernie", "Glm4v", "Glm5Next", "MiniMaxM3", "Qwen4", "QwenOmni", "QwenVL", "VideoLlama3"]


class QwenVL(Adapter):
    """`grid_thw` counts patches; tokens are merged ones, so that height and width are divided by the merge size.

    The raster order holds although the tower works in windows (Qwen2.5-VL): it puts the tokens back before it ends.
    """

    model_types: ClassVar[tuple[str, ...]] = (
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen3_vl",
        "qwen3_vl_moe",
        "qwen3_5",
        "qwen3_5_moe",
        "lfm3_vl",
        "dots3_note",
        "exaone4_5",
        "paddleocr_vl",
        "cohere_compass",
        "cosmos3_edge",
        "cosmos3_omni",
        "hyperclovax_vision_v2",
        "kimi_k25",
        "muse_glimmer",
        "muse_spark",
    )

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return self._layouts(config, encoded, "image_grid_thw")

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return self._layouts(config, encoded, "video_grid_thw")

    def _layouts(self, config: Any, encoded: Encoded, name: str) -> list[Layout]:
        down, across = _merge(config.vision_config)
        return [raster(t, h // down, w // across) for t, h, w in encoded.rows(name)]

    def tower(self, base: Any) -> Tower | None:
        known = {"qwen2_vl": False, "qwen2_5_vl": False, "qwen3_vl": True, "qwen3_vl_moe": True, "qwen3_5": True,
                 "qwen3_5_moe": True}  # are pixels normalised with 0.5?  # fmt: skip
        kind = base.config.model_type
        return Packed(base.visual, known[kind]) if kind in known else None

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # fused projections and windows: its attention rows are not offered


def _merge(vision: Any) -> tuple[int, int]:
    """Rows and columns of patches that become one token."""
    names = ("spatial_merge_size", "merge_size", "merge_kernel_size")
    merge = next(getattr(vision, name) for name in names if hasattr(vision, name))
    return (merge, merge) if isinstance(merge, int) else (int(merge[0]), int(merge[1]))


class QwenOmni(QwenVL):
    """As the Qwen families; the token that closes a picture is counted among its positions."""

    model_types = ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
    closing = 1


class Glm4v(QwenVL):
    """As the Qwen families, pictures only. Frames of a video stand under the token of pictures, not told apart here."""

    model_types = ("glm4v", "glm46v", "glm4v_moe", "glm_ocr", "glmga")

    def takes_videos(self, config: Any) -> bool:
        return False

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        raise UnsupportedModelError(
            f"{config.model_type}: its prompts mark a video like a picture; pass the frames as pictures"
        )


class MiniMaxM3(QwenVL):
    """As the Qwen families; layers attend to blocks of neighbouring keys, which are those of what is left."""

    model_types = ("minimax_m3_vl",)
    blocks = frozenset({"minimax_m3_sparse"})


class Qwen4(QwenVL):
    """As the Qwen families; an indexer pools neighbouring keys, and n-grams are made of neighbouring words, of what is
    left in both cases."""

    model_types = ("qwen4_exp",)
    padding = frozenset({"conv_mask"})
    per_token = frozenset({"ple_input_ids"})
    whole_tables = True

    def filling(self, config: Any) -> int | None:
        ends = config.eos_token_id  # in front of the first word of a row
        end: int | None = ends[0] if isinstance(ends, list) else ends
        return end


class Glm5Next(QwenVL):
    """As the Qwen families; four residual streams, which methods see side by side, and an indexer that pools
    neighbouring keys of what is left."""

    model_types = ("glm5_next",)
    own_mask = True
    streams = 2
    handed_on = frozenset({"prev_topk_indices"})

    def allows(self, config: Any, site: int) -> bool:
        return chooses_itself(config, site)

    def counting(self, attention: Any) -> nn.Module | None:
        return getattr(attention, "indexer", None)


class Ernie(QwenVL):
    """As the Qwen families; two frames of a video become one, and a token's kind chooses its experts."""

    model_types = ("ernie4_5_vl_moe",)
    per_token = frozenset({"moe_mm_token_type_ids"})

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        pair = config.vision_config.temporal_merge_size
        (down, across), sizes = _merge(config.vision_config), encoded.rows("video_grid_thw")
        return [raster(-(-t // pair), h // down, w // across) for t, h, w in sizes]


class VideoLlama3(QwenVL):
    """As the Qwen families, with a merge size for every picture: frames are merged further."""

    model_types = ("video_llama_3",)

    def _layouts(self, config: Any, encoded: Encoded, name: str) -> list[Layout]:
        sizes = encoded.rows(name)
        merges = [int(m) for m in encoded.arguments[name.replace("grid_thw", "merge_sizes")]]
        return [raster(t, h // m, w // m) for (t, h, w), m in zip(sizes, merges, strict=True)]
