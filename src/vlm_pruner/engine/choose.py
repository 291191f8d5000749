"""One stage: ask the method for the survivors of every image, and shorten the chunk to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.engine.forward import Prefill
from vlm_pruner.engine.prompt import ImageState, to_cut
from vlm_pruner.engine.rows import Kept, gather_rows
from vlm_pruner.errors import InvalidSelectionError, NotFiniteError
from vlm_pruner.methods.base import PruningMethod, refuse_what_is_not_finite, require
from vlm_pruner.plan import TOWER, Stage
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["prune_stage", "select"]

_OWN = "vlm_pruner.methods."  # whose choices the contract tests look at, so that no prefill has to wait for them


def prune_stage(
    stage: Stage,
    prefill: Prefill,
    hidden: Tensor,
    tokens_of: Callable[[ImageState], VisualTokens],
    earlier: dict[int, list[Selection]],
) -> tuple[Kept | None, Tensor]:
    """The survivors after `stage` and the hidden states [b, k, d] that are left; unchanged if nothing is to be dropped.

    Args:
        earlier: choices by site of a prompt that is sent again, which are made once; this one is noted there.

    Raises:
        MissingSignalError: the model does not have what the method needs.
        InvalidSelectionError: the method returned no proper choice.
        NotFiniteError: what the method reads of a picture is not finite.
    """
    prompt, kept = prefill.prompt, prefill.kept
    cut = to_cut(prompt.images, stage)
    if stage.layer == TOWER:
        chosen = [(image, image.tower) for image in cut if image.tower is not None]
    elif stage.site in earlier:
        chosen = list(zip(cut, earlier[stage.site], strict=True))
    else:
        chosen = select(stage, cut, tokens_of, hidden.shape[-1], prompt.images)
        earlier[stage.site] = [selection for _, selection in chosen]
    for image, selection in chosen:
        _record(stage, image, selection)
    for image in prompt.images:
        image.counts.append(image.count)
    if not chosen:
        return kept, hidden
    device = hidden.device
    mask = (prompt.real & ~prompt.visual).to(device, non_blocking=True)
    width = mask.shape[1]
    survivors = []
    for image in prompt.images:
        slots = image.span.slots.to(device, non_blocking=True)
        survivors.append(image.span.row * width + (slots if image.index is None else slots[image.index]))
    mask.view(-1)[torch.cat(survivors)] = True
    after = Kept.of(mask, prompt.row_lengths())
    hidden = gather_rows(hidden, after.index if kept is None else kept.columns.gather(1, after.index))
    return after, _merge(hidden, after, chosen)


@torch.no_grad()
def select(
    stage: Stage,
    images: list[ImageState],
    tokens_of: Callable[[ImageState], VisualTokens],
    width: int | None,
    everyone: list[ImageState],
) -> list[tuple[ImageState, Selection]]:
    """What `stage` chooses of each image; an error numbers a picture among `everyone`."""
    method = stage.method
    key: Callable[[ImageState], Any] = _shown if method.budget == "mean" else id
    found: dict[Any, Selection] = {}
    for group in _groups(stage, images):
        budgets = [image.budget(stage) for image in group]
        tokens = [tokens_of(image) for image in group]
        for one in tokens:
            require(method, one, *sorted(method.needs_at(stage.site)))
        try:
            selections = method.select_batch(tokens, budgets)
            if tokens[0].device.type != "cpu":  # there the method does not look
                refuse_what_is_not_finite(method, tokens)
        except NotFiniteError as error:
            number = next(n for n, image in enumerate(everyone, 1) if image is group[error.picture - 1])
            raise error.renumbered(number, len(everyone)) from None
        _check(method, selections, budgets, [image.count for image in group], width)
        found |= {key(image): made for image, made in zip(group, selections, strict=True)}
    return [(image, found[key(image)]) for image in images]  # in the order of the prompt, not of the groups


def _groups(stage: Stage, images: list[ImageState]) -> list[list[ImageState]]:
    """Images that share one call of the method: those of equal size and budget, or, where they share a mean, all of
    them, each once however many rows show it."""
    if stage.method.budget == "mean":
        return [list({_shown(image): image for image in reversed(images)}.values())[::-1]] if images else []
    groups: dict[tuple[int, int], list[ImageState]] = {}
    for image in images:
        groups.setdefault((image.count, image.budget(stage)), []).append(image)
    return list(groups.values())


def _shown(image: ImageState) -> tuple[int, str, int]:
    """Of rows that beams or samples have made of one, the same image is the same."""
    return image.span.row // image.span.copies, image.span.modality, image.span.index


def _check(
    method: PruningMethod, selections: list[Selection], budgets: list[int], counts: list[int], width: int | None
) -> None:
    """Raise where a method did not return what its budget says."""
    if len(selections) != len(budgets):
        raise InvalidSelectionError(f"{method.name} returned {len(selections)} selections for {len(budgets)} images")
    own = type(method).__module__.startswith(_OWN)
    for selection, keep, count in zip(selections, budgets, counts, strict=True):
        if not isinstance(selection, Selection):
            raise InvalidSelectionError(
                f"{method.name}: select returns a Selection(index=...) of int64 [keep], got a "
                f"{type(selection).__name__}"
            )
        most = keep
        if method.budget != "fixed" and isinstance(selection.index, Tensor):
            most = min(keep if method.budget == "ceiling" else count, len(selection))
        selection.validate(count, most, width, values=not own)
    if method.budget == "mean" and (total := sum(map(len, selections))) != sum(budgets):
        raise InvalidSelectionError(f"{method.name}: {total} tokens stay of all images, {sum(budgets)} were asked for")


def _record(stage: Stage, image: ImageState, selection: Selection) -> None:
    """Carry the choice over from surviving to the image's own coordinates."""
    before = image.index
    source = selection.source
    _weigh(stage, image, selection)
    if before is None:
        own = selection
    else:
        if source is not None or (image.stages and image.stages[-1][2].source is not None):
            source = _compose(image, before, selection)
        order = None if selection.order is None else before[selection.order]
        own = Selection(before[selection.index], order, selection.features, source)
    image.stages.append((stage.site, stage.keep, own))


def _weigh(stage: Stage, image: ImageState, selection: Selection) -> None:
    """Count what each survivor stands for: itself, or, where this stage merges and counts, what it was merged of."""
    source, mass = selection.source, image.mass
    if stage.bias and selection.features is not None and source is not None:
        ones = torch.ones(len(source), device=source.device) if mass is None else mass
        there = source >= 0
        image.mass = ones.new_zeros(len(selection)).index_add(0, source.clamp(min=0), ones * there)
    elif mass is not None:
        image.mass = mass[selection.index]


def _compose(image: ImageState, before: Tensor, selection: Selection) -> Tensor:
    """[n] token -> slot among the survivors of this stage, through the slot it had after the stage before."""
    step = selection.source  # [m]
    if step is None:
        step = torch.full_like(before, -1)
        step[selection.index] = torch.arange(len(selection), device=before.device)
    first = image.stages[-1][2].source if image.stages else None
    if first is None:
        first = torch.full((image.total,), -1, dtype=torch.long, device=before.device)
        first[before] = torch.arange(len(before), device=before.device)
    return torch.where(first >= 0, step[first.clamp(min=0)], -1)


def _merge(hidden: Tensor, kept: Kept, chosen: list[tuple[ImageState, Selection]]) -> Tensor:
    """Write merged rows over those of their survivors."""
    merged = [(image, s) for image, s in chosen if s.features is not None]
    if not merged:
        return hidden
    columns, hidden = kept.columns, hidden.clone()
    for image, selection in merged:
        slots = image.span.slots.to(hidden.device, non_blocking=True)[image.index]
        assert selection.features is not None
        hidden[image.span.row, columns[image.span.row, slots]] = selection.features.to(hidden.device, hidden.dtype)
    return hidden
