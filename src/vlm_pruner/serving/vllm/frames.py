"""Videos whose frames stand between words: Qwen3-VL and Qwen3.5 write `<1.5 seconds>` and two marks around each.

How many tokens a frame keeps is known when the video has been encoded, and a prompt is announced before. So such a
video is one block of placeholders: as many as it has words and marks and kept tokens. Its rows bring all of these,
words as the language model's own embeddings, in the order in which they belong and with their places.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.multimodal.inputs import (
    MultiModalFeatureSpec,
    MultiModalFieldConfig,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)  # fmt: skip

from vlm_pruner.adapters.base import Layout
from vlm_pruner.serving.vllm.families import WRITES_FRAMES
from vlm_pruner.serving.vllm.places import Places, with_places

__all__ = ["Frames"]

_PROCESSOR: Any = getattr(importlib.import_module(WRITES_FRAMES[0]), WRITES_FRAMES[1])


class Frames(Places):
    """Mixed into a model whose videos are frames between words."""

    def place(
        self, rows: Tensor, kept: Tensor, layout: Layout, modality: str, arguments: Mapping[str, Any], number: int
    ) -> Tensor:
        """As `Places.place`; words of a video come along."""
        if modality != "video":
            return super().place(rows, kept, layout, modality, arguments, number)
        assert layout.grid is not None
        ids, where = self._film(layout.grid, arguments["timestamps"][number])
        shown = ids == self.config.video_token_id  # type: ignore[attr-defined]
        left = torch.zeros(layout.tokens, dtype=torch.bool)
        left[kept.cpu()] = True
        stays = ~shown
        stays[shown.nonzero().flatten()[left]] = True
        words = self.get_language_model().embed_input_ids(ids[~shown].to(rows.device))  # type: ignore[attr-defined]
        made = rows.new_zeros(len(ids), rows.shape[1])
        made[(~shown).to(rows.device), : words.shape[1]] = words.to(rows.dtype)
        made[(shown & stays).to(rows.device)] = rows
        return with_places(made[stays.to(rows.device)], where[stays].to(rows.device))

    def whole_ids(self, feature: Any, token: int) -> list[int]:
        """As `Places.whole_ids`; with the words of a video."""
        if feature.modality != "video":
            return super().whole_ids(feature, token)
        side = self.config.vision_config.spatial_merge_size  # type: ignore[attr-defined]
        t, h, w = feature.data["video_grid_thw"].data.tolist()
        ids: list[int] = self._words((t, h // side, w // side), feature.data["timestamps"].data)
        return ids

    def _words(self, grid: tuple[int, int, int], times: Sequence[float] | Tensor) -> list[int]:
        """Tokens of a whole video: seconds, marks and placeholders, as vLLM writes them."""
        config: Any = self.config  # type: ignore[attr-defined]
        ids: list[int] = _PROCESSOR.get_video_repl(
            tokens_per_frame=[grid[1] * grid[2]] * grid[0], timestamps=times,
            tokenizer=self._tokenizer, vision_start_token_id=config.vision_start_token_id,  # type: ignore[attr-defined]
            vision_end_token_id=config.vision_end_token_id, video_token_id=config.video_token_id,
        ).full  # fmt: skip
        return ids

    def _film(self, grid: tuple[int, int, int], times: Sequence[float] | Tensor) -> tuple[Tensor, Tensor]:
        """[n] tokens of a whole video and [n, 3] their places, from the first of them on: vLLM's own."""
        ids = self._words(grid, times)
        side = self.config.vision_config.spatial_merge_size  # type: ignore[attr-defined]
        sizes = torch.tensor([grid[0], grid[1] * side, grid[2] * side])
        held = MultiModalFieldElem(data=sizes, field=MultiModalFieldConfig.batched("video").field)
        video = MultiModalFeatureSpec(
            data=MultiModalKwargsItem({"video_grid_thw": held}), modality="video", identifier="whole",
            mm_position=PlaceholderRange(offset=0, length=len(ids)),
        )  # fmt: skip
        places, _ = self.get_mrope_input_positions(ids, [video])
        return torch.tensor(ids), places.T
