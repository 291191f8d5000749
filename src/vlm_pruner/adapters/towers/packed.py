"""Towers that take pictures of any size, all patches in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from vlm_pruner.adapters.towers.base import Forward, Tower, TowerCall
from vlm_pruner.adapters.towers.base import unit as _unit

__all__ = ["Packed", "PackedCall"]


@dataclass(frozen=True)
class Packed(Tower):
    """Pictures of any size behind one another, `merge` x `merge` patches to a token, and a table of their grids.

    What the tower would work out of the grids is handed to it, cut: it takes such keyword arguments.
    """

    module: Any
    half: bool = False

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PackedCall:
        rest = dict(kwargs)
        rows = args[0] if args else rest.pop("hidden_states")
        return PackedCall(self, rows, args[1] if args[1:] else rest.pop("grid_thw"), rest)


class PackedCall(TowerCall):
    """Rows of pixels [n, p], the patches of a token behind one another, for pictures of the grids [m, 3]."""

    def __init__(self, tower: Packed, rows: Tensor, table: Tensor, kwargs: dict[str, Any]) -> None:
        self.tower, self.rows, self.table, self.kwargs = tower, rows, table, kwargs
        self.side, self.device = tower.module.spatial_merge_size, rows.device
        self.grids = [(t, h // self.side, w // self.side) for t, h, w in table.tolist()]
        self.sizes = [t * h * w for t, h, w in self.grids]

    def features(self) -> list[Tensor]:
        rows = self.tower.module.patch_embed(self.rows)
        return list(torch.split(rows.reshape(sum(self.sizes), -1), self.sizes))

    def pixels(self) -> list[Tensor]:
        config = self.tower.module.config
        channels = getattr(config, "in_channels", 3)
        values = _unit(self.rows.view(len(self.rows), channels, -1, 1), self.tower.half)
        return list(torch.split(values.squeeze(3).mT.reshape(sum(self.sizes), -1, channels), self.sizes))

    def run(self, original: Forward, kept: Sequence[Tensor]) -> Any:
        unit, device = self.side**2, self.rows.device
        starts = [sum(self.sizes[:n]) for n in range(len(self.sizes))]
        tokens = torch.cat([k + start for k, start in zip(kept, starts, strict=True)])
        patches = _patches(tokens, unit)
        stays = torch.zeros(sum(self.sizes), dtype=torch.bool, device=device).index_fill(0, tokens, True)
        cut = self._positions(patches) | {"cu_seqlens": _ends(self._frames(kept), unit, device)}
        order = None
        if hasattr(self.tower.module, "window_size"):
            order, windows = self._windows(stays)
            cut |= windows
        rest = {k: v for k, v in self.kwargs.items() if k not in ("max_seqlen", "max_window_seqlen")}
        out = original(self.rows[patches], grid_thw=self.table, **(rest | cut))
        # The rows of a tower with windows come in the order of its windows.
        places = patches if order is None else _patches(stays[order].nonzero().flatten(), unit)
        out["last_hidden_state"] = self._restored(out["last_hidden_state"], places, unit)
        out["pooler_output"] = self._restored(out["pooler_output"], tokens)
        if out.get("deepstack_features") is not None:
            out["deepstack_features"] = [self._restored(rows, tokens) for rows in out["deepstack_features"]]
        return out

    def _positions(self, patches: Tensor) -> dict[str, Tensor]:
        """Of the kept patches: rotary positions, and where learned ones are interpolated, the places and weights."""
        module = self.tower.module
        cut = {"position_ids": get_vision_position_ids(self.table, self.side)[patches]}
        if hasattr(module, "num_grid_per_side"):
            how = (module.num_grid_per_side, module.interpolation_mode, module.interpolation_align_corners, self.side)
            places, weights = get_vision_interpolation_indices_and_weights(self.table, *how)
            cut |= {"interp_indices": places[patches], "interp_weights": weights[patches]}
        return cut

    def _frames(self, kept: Sequence[Tensor]) -> list[int] | Tensor:
        """Kept tokens of every frame: a frame attends to itself alone."""
        if all(t == 1 for t, _, _ in self.grids):
            return [len(tokens) for tokens in kept]
        counts = [torch.bincount(k // (h * w), minlength=t) for k, (t, h, w) in zip(kept, self.grids, strict=True)]
        return torch.cat(counts)

    def _windows(self, stays: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The order of all tokens by window, and what is left of it: the order of the kept ones, and the windows."""
        module, unit = self.tower.module, self.side**2
        order, ends = get_vision_window_index(self.table, self.side, module.window_size, module.patch_size)
        order, sizes = order.to(stays.device), ends.to(stays.device).diff() // unit
        window = torch.repeat_interleave(torch.arange(len(sizes), device=stays.device), sizes)
        number = stays.cumsum(0) - 1  # token -> row among the kept
        counts = torch.bincount(window[stays[order]], minlength=len(sizes))
        return order, {
            "window_index": number[order[stays[order]]],
            "cu_window_seqlens": _ends(counts, unit, stays.device),
        }

    def _restored(self, rows: Tensor, places: Tensor, unit: int = 1) -> Tensor:
        return rows.new_zeros(sum(self.sizes) * unit, *rows.shape[1:]).index_copy(0, places, rows)


def _patches(tokens: Tensor, unit: int) -> Tensor:
    """[k unit] the patches of tokens [k], which stand behind one another."""
    return (tokens[:, None] * unit + torch.arange(unit, device=tokens.device)).flatten()


def _ends(counts: list[int] | Tensor, unit: int, device: torch.device) -> Tensor:
    """[segments + 1] int32 where segments of so many tokens end, in patches; empty ones are left out."""
    sizes = torch.as_tensor(counts, device=device)
    sizes = sizes[sizes > 0] * unit
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).to(torch.int32)
