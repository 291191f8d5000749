"""What a decoder layer is told of all that its cache stores, fitted to the entries that are left.

Some layers go by numbers of stored entries, which the unpruned sequence has otherwise: blocks of keys are counted by
position ids, rotary tables reach over everything that is stored.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.engine.cache import PrunedLayer
from vlm_pruner.engine.forward import Forward
from vlm_pruner.engine.masks import Places, remap_mask
from vlm_pruner.engine.rows import Kept, gather_rows
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["count_stored", "cut_padding", "fit_mask", "fit_stored"]


def cut_padding(fwd: Forward, parts: Parts, level: int, mask: Any) -> Tensor | None:
    """A mask [b, q] or None that hides the padding of a chunk -> [b, k], with that of rows that kept different counts.

    Raises:
        UnsupportedModelError: such padding would stand between what is stored already and this chunk, or another kind
            of mask.
    """
    assert fwd.kept is not None
    index, valid = fwd.kept.index, fwd.kept.valid
    if valid is not None and not fwd.first:
        raise UnsupportedModelError(
            f"{parts.name}: rows of a later turn keep different numbers of tokens, and the padding between would "
            "change the states of its recurrent layers; ask row by row, or keep an exact number of tokens in every row"
        )
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
        raise UnsupportedModelError(f"{parts.name}: the mask of a layer without attention is not [batch, queries]")

    def cut() -> Tensor | None:
        made = None if mask is None else gather_rows(mask, index)
        if valid is not None:
            made = valid.long() if made is None else made * valid
        return made

    return fwd.once(mask, ("padding", level), cut)  # type: ignore[no-any-return]


def fit_mask(
    fwd: Forward, parts: Parts, index: int, mask: Any, tag: Any, places: Places, rows: Kept | None, ragged: bool,
    hidden: Tensor,
) -> Any:  # fmt: skip
    """The mask of attention layer `index` at the places that are left; layers of one `tag` share it. See `remap_mask`.

    Args:
        rows: queries of this chunk that are left of the mask's; None if it has no others.
        hidden: [b, k, d] rows that enter the layer.
    """
    make = functools.partial(remap_mask, mask, places, rows, ragged, parts.causal(index), hidden, parts.backend)
    return fwd.once(mask, tag, make)


def fit_stored(
    fwd: Forward, parts: Parts, index: int, layer: Any, places: Places | None, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The keyword arguments of attention layer `index` with what counts stored entries set right.

    Args:
        layer: of the cache, pruned; None without one.
        places: of its queries and keys; None in a decode step of a batch without padding.

    Raises:
        UnsupportedModelError: rows that kept different counts where blocks are counted.
    """
    if places is not None and parts.measures(index):
        fwd.apart[index] = places
    if parts.counts_blocks(index):
        return {**kwargs, "position_ids": _ordinals(fwd, parts, layer, places, kwargs.get("position_ids"))}
    rotary = kwargs.get("position_embeddings")
    if parts.adapter.whole_tables and rotary is not None:
        assert places is not None
        at = (torch.cat([places.key, places.query], 1) - 1).clamp(min=0)  # [b, k + q]: queries stand at the end
        tables = fwd.once(rotary[0], ("stored", id(places)), lambda: tuple(gather_rows(table, at) for table in rotary))
        return {**kwargs, "position_embeddings": tables}
    return kwargs


def _ordinals(fwd: Forward, parts: Parts, layer: Any, places: Places | None, positions: Any) -> Tensor:
    """Positions [b or 1, k] of the queries, less what was dropped in front of each."""
    if fwd.kept is not None and fwd.kept.valid is not None:
        raise UnsupportedModelError(
            f"{parts.name} counts blocks of keys from the padding on, and rows that keep different numbers of tokens "
            "get one: ask row by row, or keep an exact number of tokens in every row"
        )
    if positions is None:
        raise UnsupportedModelError(f"{parts.name}: decoder layers are called without position_ids")
    if places is None:
        return positions - layer.pruned_dropped  # type: ignore[no-any-return]
    query, key = places.query[:, :, None], places.key[:, None]
    there = ((key > 0) & (key < query)).sum(2)
    return positions - (places.query - 1 - there)  # type: ignore[no-any-return]


def count_stored(parts: Parts, index: int) -> Iterator[Any]:
    """Hooks, removed by their handles, around a part of layer `index` that numbers what the cache holds: it is told
    what is stored, and not the length of the unpruned sequence."""
    part = parts.adapter.counting(parts.attention(index))
    if part is None:
        return

    def tell(bare: bool, module: nn.Module, args: Any, kwargs: dict[str, Any], *_: Any) -> None:
        layers = getattr(kwargs.get(parts.layer_cache), "layers", None)
        if layers and isinstance(layers[index], PrunedLayer):
            layers[index].pruned_bare = bare

    yield part.register_forward_pre_hook(functools.partial(tell, True), with_kwargs=True)
    yield part.register_forward_hook(functools.partial(tell, False), with_kwargs=True, always_call=True)
