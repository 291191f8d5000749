"""Towers that take pictures of one size, a batch at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.adapters.towers.base import Forward, Tower, TowerCall, unit

__all__ = ["Squares", "SquaresCall"]


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
        values, side = unit(self.values, self.tower.half), self.tower.side * self.tower.projection.kernel_size[0]
        whole = values[..., : self.grids[0][1] * side, : self.grids[0][2] * side]
        return [rows.view(len(rows), -1, values.shape[1]) for rows in _by_token(whole, side)]

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


def _by_token(maps: Tensor, side: int) -> Tensor:
    """[m, d, H, W] -> [m, n, side^2 d]: what lies in each square of side x side, in raster order."""
    m, d, high, wide = maps.shape
    h, w = high // side, wide // side
    blocks = maps[:, :, : h * side, : w * side].reshape(m, d, h, side, w, side)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(m, h * w, -1)
