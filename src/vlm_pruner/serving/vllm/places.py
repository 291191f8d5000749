"""Where rows belong in time, height and width: M-RoPE positions of prompts from which tokens are missing.

The runner numbers a prompt when it arrives, before its pictures are encoded. Text is numbered rightly then: behind a
picture it goes on where the whole picture ends, whatever is left of it. Which places of a picture are left comes with
its rows: in further columns, which the runner hands to `recompute_mrope_positions` before the rows enter the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.adapters.base import Layout, plane
from vlm_pruner.serving.vllm.counting import field
from vlm_pruner.serving.vllm.wanted import kept_of, read

__all__ = ["Places", "with_places"]

COLUMNS = 6  # time, height and width, each as two digits to base 256, which bfloat16 holds exactly
BASE = 256
STAYS = 255.0  # a first digit that no place has: the row is where the runner put it


def with_places(rows: Tensor, where: Tensor | None) -> Tensor:
    """[n, d + 6] rows with their places behind them.

    Args:
        where: [n, 3] places from the first token of the picture on; None = all of it is there.
    """
    if where is None:
        return torch.cat([rows, rows.new_full((len(rows), COLUMNS), STAYS)], 1)
    whole = where.round().long()
    digits = torch.stack([whole // BASE, whole % BASE], 2).flatten(1)  # [n, 6]
    return torch.cat([rows, digits.to(rows.dtype)], 1)


class Places:
    """Mixed into a model with M-RoPE."""

    rotary = True
    vlm_pruner_ready: bool

    def place(
        self, rows: Tensor, kept: Tensor, layout: Layout, modality: str, arguments: Mapping[str, Any], number: int
    ) -> Tensor:
        """[k, d + 6] rows that are left of a picture or video, with their places.

        Args:
            rows: [k, d] that are left.
            kept: [k] which they are.
            layout: of the whole.
            arguments: of the encoder.
            number: of the picture or video among these.
        """
        where = plane(*layout.grid) if layout.position is None else layout.position
        seconds = arguments.get("second_per_grid_ts") if modality == "video" else None
        if seconds is not None:  # Qwen2.5-VL: a frame's place in time is its second, of so many places each
            rate = float(getattr(self.config.vision_config, "tokens_per_second", 1.0))  # type: ignore[attr-defined]
            step = float(seconds[number]) * rate  # multiplied in vLLM's order, whose result is rounded down
            where = torch.cat([(where[:, :1].double() * step).floor(), where[:, 1:]], 1)
        return with_places(rows, where.to(rows.device)[kept])

    def whole_ids(self, feature: Any, token: int) -> list[int]:
        """The tokens of a whole picture or video in a prompt.

        Args:
            token: the placeholder.
        """
        return [token] * self._full(feature)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Positions [3, n] of a prompt: those of the whole pictures, without the places that will not be there."""
        whole, features, keep, shift = list(input_tokens), [], [True] * len(input_tokens), 0
        for feature in sorted(mm_features, key=lambda one: one.mm_position.offset):
            start, length = feature.mm_position.offset + shift, feature.mm_position.length
            end, ids = start + length, whole[start : start + length]
            if self._cut(feature):
                ids = self.whole_ids(feature, ids[-1])
                whole[start:end] = ids
                keep[end:end] = [False] * (len(ids) - length)
                shift += len(ids) - length
            place = dataclasses.replace(feature.mm_position, offset=start, length=len(ids))
            features.append(dataclasses.replace(feature, mm_position=place))
        positions, _ = super().get_mrope_input_positions(whole, features)  # type: ignore[misc]
        delta = int(positions.max()) + 1 - len(input_tokens)
        return positions[:, torch.tensor(keep)], delta

    def recompute_mrope_positions(
        self, input_ids: Any, multimodal_embeddings: Sequence[Tensor], mrope_positions: Tensor, num_computed_tokens: int
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """Rows without their places, and the positions [3, n] of the prompt with these put in.

        Args:
            input_ids: [n] the prompt.
            multimodal_embeddings: rows of the pictures in this chunk of the prefill.
            num_computed_tokens: where the chunk begins.
        """
        positions = mrope_positions.clone()
        delta = int(positions[:, -1].max()) + 1 - positions.shape[1]
        rows = [one[:, :-COLUMNS] for one in multimodal_embeddings]
        if not rows:
            return rows, positions, delta
        ids = torch.as_tensor(input_ids, device=positions.device)
        config = self.config  # type: ignore[attr-defined]
        visual = (ids == config.image_token_id) | (ids == config.video_token_id)
        digits = torch.cat([one[:, -COLUMNS:] for one in multimodal_embeddings]).to(positions.device).long()
        slots = visual.nonzero().flatten()
        slots = slots[slots >= num_computed_tokens][: len(digits)]
        before = torch.where(visual, 0, torch.arange(len(ids), device=ids.device)).cummax(0).values[slots]
        places = (digits[:, 0::2] * BASE + digits[:, 1::2]).T  # [3, rows]
        moved = digits[:, 0] != STAYS
        positions[:, slots[moved]] = (places + positions[0, before] + 1)[:, moved]
        return rows, positions, delta

    def _cut(self, feature: Any) -> bool:
        """Is anything missing of this picture?"""
        data = feature.data
        name = field(feature.modality)
        if data is None or name not in data:
            return False
        total = self._full(feature)
        return kept_of(read(bytes(data[name].data.tolist()), True), total) < total

    def _full(self, feature: Any) -> int:
        """Tokens of the whole picture."""
        side = self.config.vision_config.spatial_merge_size  # type: ignore[attr-defined]
        patches = int(feature.data[f"{feature.modality}_grid_thw"].data.prod())
        return patches // int(side) ** 2
