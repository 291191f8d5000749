"""The yardstick of a stage before the tower: the whole tower, with the dropped patches hidden from every attention.

It shares no code with the adapters or the engine: patches are hidden by an attention function of its own, and where
they lie is worked out here. What was chosen is taken from the session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.vision_utils import get_vision_window_index

from vlm_pruner.engine import tower as engine

NAME = "hidden_patches"
_now: dict[str, Any] = {"gone": None, "start": 0}


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, scaling: Any = None, **_: Any
) -> tuple[Tensor, None]:
    scores = query.double() @ key.double().transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    gone = _now["gone"]
    if gone.dim() == 1:  # all pictures in one sequence, which is handed in segment by segment, layer after layer
        start, rows = _now["start"], key.shape[2]
        gone = gone[None, start : start + rows]
        _now["start"] = (start + rows) % len(_now["gone"])
    scores = scores.masked_fill(gone[:, None, None], torch.finfo(torch.float64).min)
    return (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def tower_of(model: Any) -> Any:
    base = model.base_model
    return next(getattr(base, name) for name in ("visual", "vision_tower", "vision_model") if hasattr(base, name))


@contextmanager
def kept_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Tensor]]]:
    """The tokens that were kept before the tower, picture by picture, of every encoding inside the block."""
    seen: list[list[Tensor]] = []
    choose = engine.BeforeTower._choose

    def spy(self: Any, call: Any) -> Any:
        chosen = choose(self, call)
        seen.append(chosen.kept)
        return chosen

    with monkeypatch.context() as patch:
        patch.setattr(engine.BeforeTower, "_choose", spy)
        yield seen


@contextmanager
def hidden_patches(model: Any, kept: Sequence[Tensor], grid: Tensor | None = None) -> Iterator[None]:
    """Hide the patches of all tokens that were not kept from the attention of the tower.

    Args:
        kept: tokens of every picture that the tower sees.
        grid: [m, 3] of towers that pack their pictures.
    """
    tower = tower_of(model)
    _now["gone"] = _of_squares(tower, kept, model.config) if grid is None else _of_packed(tower, kept, grid)
    _now["start"] = 0
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    backend = tower.config._attn_implementation
    tower.config._attn_implementation = NAME
    try:
        yield
    finally:
        tower.config._attn_implementation = backend


def _of_squares(tower: Any, kept: Sequence[Tensor], config: Any) -> Tensor:
    """[m, CLS and patches] bool."""
    size, patch = tower.config.image_size, tower.config.patch_size
    side = size // patch if isinstance(size, int) else size[0] // patch[0]
    group = {"internvl": 2, "idefics3": 2, "smolvlm": 2, "gemma3": 2}.get(config.model_type, 1)
    rows = []
    for tokens in kept:
        gone = torch.ones((side // group) ** 2, dtype=torch.bool).index_fill(0, tokens, False)
        rows.append(gone.view(side // group, -1).repeat_interleave(group, 0).repeat_interleave(group, 1).flatten())
    first = any(name.endswith(("class_embedding", "cls_token")) for name, _ in tower.named_parameters())
    return torch.nn.functional.pad(torch.stack(rows), (int(first), 0))


def _of_packed(tower: Any, kept: Sequence[Tensor], grid: Tensor) -> Tensor:
    """[patches] bool, in the order in which the tower works through them."""
    merge = tower.config.spatial_merge_size
    whole = []
    for tokens, (t, h, w) in zip(kept, grid.tolist(), strict=True):
        whole.append(torch.ones(t * h * w // merge**2, dtype=torch.bool).index_fill(0, tokens, False))
    gone = torch.cat(whole)
    if hasattr(tower, "window_size"):
        gone = gone[get_vision_window_index(grid, merge, tower.window_size, tower.patch_size)[0]]
    return gone.repeat_interleave(merge**2)
