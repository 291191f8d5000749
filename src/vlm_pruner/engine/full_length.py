"""Outputs of the unpruned length, on request: rows go back to their places, dropped places are NaN."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vlm_pruner.engine.arguments import apart, side_by_side
from vlm_pruner.engine.rows import Kept

__all__ = ["scatter_back", "scatter_outputs"]


def scatter_back(rows: Tensor, kept: Kept) -> Tensor:
    """[b, k, d] rows -> [b, q, d] with NaN where a token was dropped."""
    full = rows.new_full((rows.shape[0], kept.mask.shape[1], rows.shape[2]), float("nan"))
    mask = kept.mask.to(rows.device)
    full[mask] = rows.flatten(0, 1) if kept.valid is None else rows[kept.valid.to(rows.device)]
    return full


def scatter_outputs(output: Any, levels: list[Kept | None], sites: tuple[int, ...], streams: int | None = None) -> Any:
    """`last_hidden_state` and `hidden_states` of the base model's output, in place; logits are made of the former.

    Args:
        levels: survivors after each stage.
        sites: decoder layers of the stages.
        streams: the axis of several residual streams in `hidden_states`.
    """
    if isinstance(output, tuple):
        return (_back(output[0], levels[-1]), *output[1:])
    rows = "last_hidden_state" if "last_hidden_state" in output else "logits"  # of a model that is its own head
    output[rows] = _back(output[rows], levels[-1])
    states = output.get("hidden_states")
    if states is not None:
        # Number i is the output of layer i - 1, and number 0 what entered layer 0.
        passed = [sum(site <= max(0, i - 1) for site in sites) for i in range(len(states))]
        output["hidden_states"] = tuple(
            _back(state, levels[level - 1], streams) if level else state
            for state, level in zip(states, passed, strict=True)
        )
    return output


def _back(rows: Tensor, kept: Kept | None, streams: int | None = None) -> Tensor:
    if kept is None:
        return rows
    if streams is not None and rows.dim() == 4:
        return apart(_back(side_by_side(rows, streams), kept), streams, rows.shape[streams])
    # The model itself may have gone on with the last rows alone, which are all there.
    return scatter_back(rows, kept) if rows.shape[1] == kept.index.shape[1] else rows
