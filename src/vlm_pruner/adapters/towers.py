"""Vision towers that can be run on some of their patches alone: what goes in is cut, what comes out has its old shape.

Positions are given to every patch before anything is cut, and no row knows its place behind that. So the rows that come
out are those of the whole tower in which the other patches are hidden from every attention. Rows that were cut come
out as zeros, so that whatever lies behind the tower (splits by picture, shuffles, pooling, placeholders) stays stock.
Nothing is chosen here. A token may be made of several patches: they go or stay together.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

__all__ = ["Packed", "Squares", "Tower", "TowerCall"]

Forward = Callable[..., Any]

_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class TowerCall(ABC):
    """One call of a tower, with all of its patches: a picture is what attends to itself alone."""

    grids: list[tuple[int, int, int]]  # (t, h, w) tokens of every picture
    side: int  # patches along one side of a token
    device: torch.device

    @abstractmethod
    def features(self) -> list[Tensor]:
        """[t h w, d] embeddings of the patches of every token, side by side and without a position, by picture."""

    @abstractmethod
    def pixels(self) -> list[Tensor]:
        """[t h w, p] float32 values under every token, from 0 to 1 as the family's processors normalise, by picture."""

    @abstractmethod
    def run(self, original: Forward, kept: Sequence[Tensor]) -> Any:
        """What the tower makes of the tokens `kept` (ascending, int64) of every picture, in the shape of all of them.

        Args:
            original: the tower's forward.
        """


class Tower(ABC):
    """How one kind of tower takes its patches."""

    module: Any

    @abstractmethod
    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TowerCall:
        """A call with these arguments."""


@dataclass(frozen=True)
class Squares(Tower):
    """Pictures of one size, m at a time, as CLIP and SigLIP take them: `embeddings` adds positions to the patches.

    They are run together where equally many patches stay of each, else one number after the other.
    """

    module: Any
    side: int = 1  # patches along one side of a token
    half: bool = False  # pixels are normalised with 0.5, else as CLIP does

    @property
    def embeddings(self) -> Any:
        """The module that makes rows of pixels."""
        return self.module.embeddings

    @property
    def projection(self) -> nn.Conv2d:
        """The convolution in it."""
        return next(part for part in self.embeddings.modules() if isinstance(part, nn.Conv2d))

    @property
    def first(self) -> int:
        """Rows in front of the patches: CLS."""
        return int(hasattr(self.embeddings, "class_embedding") or hasattr(self.embeddings, "cls_token"))

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SquaresCall:
        rest = dict(kwargs)
        pixels = args[0] if args else rest.pop("pixel_values")
        return SquaresCall(self, pixels, args[1:], rest)


class SquaresCall(TowerCall):
    """m pictures [m, channels, height, width]."""

    def __init__(self, tower: Squares, values: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.tower, self.values, self.args, self.kwargs = tower, values, args, kwargs
        self.side, self.device = tower.side, values.device
        patch = tower.projection.kernel_size
        self.high, self.wide = (n // size for n, size in zip(values.shape[-2:], patch, strict=True))
        self.grids = [(1, self.high // tower.side, self.wide // tower.side)] * len(values)

    def features(self) -> list[Tensor]:
        projection = self.tower.projection
        return list(_by_token(projection(self.values.to(projection.weight.dtype)), self.tower.side))

    def pixels(self) -> list[Tensor]:
        values, side = _unit(self.values, self.tower.half), self.tower.side * self.tower.projection.kernel_size[0]
        return list(_by_token(values[..., : self.grids[0][1] * side, : self.grids[0][2] * side], side))

    def patches(self, tokens: Tensor) -> Tensor:
        """[k side^2] rows of the patches of `tokens` [k] among the h w of a picture."""
        across, side = self.grids[0][2], self.tower.side
        inside = torch.arange(side, device=tokens.device)
        row = (tokens // across * side)[:, None, None] + inside[:, None]
        column = (tokens % across * side)[:, None, None] + inside
        return (row * self.wide + column).flatten()

    def run(self, original: Forward, kept: Sequence[Tensor]) -> Any:
        counts: dict[int, list[int]] = {}
        for number, tokens in enumerate(kept):
            counts.setdefault(len(tokens), []).append(number)
        made = [self._run(original, kept, numbers) for numbers in counts.values()]
        if len(made) == 1:
            return made[0]
        order = torch.tensor([n for numbers in counts.values() for n in numbers], device=self.values.device).argsort()
        out = made[0]
        for name in list(out.keys()):
            parts = [one[name] for one in made]
            if name == "hidden_states" and parts[0] is not None:
                out[name] = tuple(None if s[0] is None else torch.cat(s)[order] for s in zip(*parts, strict=True))
            else:
                out[name] = torch.cat(parts)[order] if isinstance(parts[0], Tensor) else None
        return out

    def _run(self, original: Forward, kept: Sequence[Tensor], numbers: list[int]) -> Any:
        """The tower on some of the pictures, of which equally many tokens stay."""
        whole, first = len(numbers) == len(kept), self.tower.first
        patches = torch.stack([self.patches(kept[n]) for n in numbers])
        front = torch.arange(first, device=patches.device).expand(len(numbers), -1)
        self.rows = torch.cat([front, patches + first], 1)  # [m, first + k side^2]
        self.total = first + self.high * self.wide

        def own(value: Any) -> Any:
            by_picture = isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(kept)
            return value if whole or not by_picture else value[numbers]

        args, kwargs = [own(a) for a in self.args], {name: own(value) for name, value in self.kwargs.items()}
        self.thread = threading.get_ident()  # others may be inside the same model
        handle = self.tower.embeddings.register_forward_hook(self._cut)
        try:
            out = original(own(self.values), *args, **kwargs)
        finally:
            handle.remove()
        out["last_hidden_state"] = self.restored(out["last_hidden_state"])
        if out.get("hidden_states") is not None:
            out["hidden_states"] = tuple(s if s is None else self.restored(s) for s in out["hidden_states"])
        return out

    def _cut(self, module: nn.Module, args: Any, rows: Tensor) -> Tensor | None:
        if threading.get_ident() != self.thread:
            return None
        return rows.gather(1, self.rows[..., None].expand(-1, -1, rows.shape[2]))

    def restored(self, rows: Tensor) -> Tensor:
        """[m, first + k side^2, d] -> [m, first + patches, d], zeros where nothing was run."""
        full = rows.new_zeros(rows.shape[0], self.total, rows.shape[2])
        return full.scatter(1, self.rows[..., None].expand(-1, -1, rows.shape[2]), rows)

    def spread(self, heard: Tensor, axis: int) -> Tensor:
        """What was heard of the patches that were run, [m, ..., k side^2, ...], with zeros along `axis` for others."""
        first, shape = self.tower.first, [1] * heard.dim()
        shape[0], shape[axis] = heard.shape[0], heard.shape[axis]
        index = (self.rows[:, first:] - first).view(shape).expand(heard.shape)
        full = list(heard.shape)
        full[axis] = self.total - first
        return heard.new_zeros(full).scatter(axis, index, heard)


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
        values = self.rows.view(len(self.rows), getattr(config, "in_channels", 3), -1, 1)
        return list(torch.split(_unit(values, self.tower.half).reshape(sum(self.sizes), -1), self.sizes))

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


def _unit(values: Tensor, half: bool) -> Tensor:
    """Normalised pixels [m, channels, ..., ...] as float32 from 0 to 1."""
    mean, deviation = (torch.tensor(x, device=values.device).view(1, -1, 1, 1) for x in (_HALF if half else _CLIP))
    return values.float() * deviation + mean


def _by_token(maps: Tensor, side: int) -> Tensor:
    """[m, d, H, W] -> [m, n, side^2 d]: what lies in each square of side x side, in raster order."""
    m, d, high, wide = maps.shape
    h, w = high // side, wide // side
    blocks = maps[:, :, : h * side, : w * side].reshape(m, d, h, side, w, side)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(m, h * w, -1)
