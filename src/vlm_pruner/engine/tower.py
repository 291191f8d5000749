"""A stage before the vision tower: the choice among patches, and what of it each picture of a prompt keeps.

The tower's forward is wrapped. Inside the encoding of pictures it is run on the patches of the kept tokens alone; what
it returns has its old shape, so that everything behind it stays stock. The same tokens are dropped before the language
model, by the machinery that every stage uses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.adapters.base import Layout, VisualSpan, raster
from vlm_pruner.adapters.towers import SquaresCall, Tower, TowerCall
from vlm_pruner.engine.choose import select
from vlm_pruner.engine.clock import Mark, mark
from vlm_pruner.engine.forward import Local
from vlm_pruner.engine.prompt import ImageState, left_alone, to_cut
from vlm_pruner.engine.release import unseen
from vlm_pruner.engine.signals import reads
from vlm_pruner.engine.support import Parts
from vlm_pruner.errors import PlanError, UnsupportedModelError
from vlm_pruner.ops.sync import declared_sync
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["BeforeTower", "Chosen", "tower_of"]


def tower_of(parts: Parts) -> Tower:
    """The vision tower of a model, which can be run on some of its patches.

    Raises:
        UnsupportedModelError: it is not known how.
    """
    tower = parts.adapter.tower(parts.base)
    if tower is None:
        raise UnsupportedModelError(
            f"{parts.name}: it is not known how to run its vision tower on some of its patches; prune before the "
            "language model (layer=0) or at a decoder layer"
        )
    return tower


@dataclass(frozen=True)
class Chosen:
    """What was chosen before the tower, for every picture that it sees."""

    stage: Stage
    call: TowerCall
    selections: list[Selection | None]  # None = all tokens
    kept: list[Tensor]  # [k] tokens of every picture
    marks: tuple[Mark, Mark]  # of the choice

    @property
    def cuts(self) -> bool:
        """Does anything stay outside?"""
        return any(selection is not None for selection in self.selections)

    @property
    def run(self) -> list[tuple[tuple[int, int, int], int, Tensor]]:
        """Of every picture: (t, h, w) patches, patches along one side of a token, and the kept tokens."""
        side = self.call.side
        grids = [(t, h * side, w * side) for t, h, w in self.call.grids]
        return [(grid, side, tokens) for grid, tokens in zip(grids, self.kept, strict=True)]

    @property
    def sizes(self) -> list[int]:
        """Tokens of every picture."""
        return [t * h * w for t, h, w in self.call.grids]

    def of(self, span: VisualSpan) -> Selection | None:
        """The choice for one image of a prompt, in its own tokens; None = all.

        Raises:
            PlanError: the tower saw the image as several squares, for which a number of tokens has no meaning.
            UnsupportedModelError: its tokens are not those that left the tower.
        """
        layout, own = span.layout, slice(span.tile, span.tile + span.layout.tiles)
        if own.stop > len(self.selections):
            raise unseen(f"{own.stop} pictures stand in the prompt, and {len(self.selections)} entered the tower")
        chosen, sizes = self.selections[own], self.sizes[own]
        if all(selection is None for selection in chosen):
            return None
        if len(chosen) > 1 and isinstance(self.stage.keep, int):
            raise PlanError(
                f"keep={self.stage.keep} before the tower: it sees this {span.modality} as {len(chosen)} tiles, each "
                "with a budget of its own; give a share, such as keep=0.25"
            )
        if layout.mixed or (layout.patch is None and layout.tokens != sum(sizes)):
            raise UnsupportedModelError(
                f"a token of this {span.modality} is made, behind the tower, of patches that lie around it: some would "
                "be missing; prune before the language model (layer=0)"
            )
        return chosen[0] if layout.patch is None and len(chosen) == 1 else _joined(layout, self.kept[own], sizes)

    def spread(self, heard: Tensor, axis: int) -> Tensor:
        """What was heard in the tower of the patches that were run, which lie along `axis`, with zeros for all others.

        Raises:
            UnsupportedModelError: it ran several times.
        """
        if not self.cuts:
            return heard
        if not isinstance(self.call, SquaresCall) or len(self.call.rows) != len(self.selections):
            raise UnsupportedModelError(
                "a later stage reads the vision tower, in which different numbers of patches are left of each picture"
            )
        return self.call.spread(heard, axis)


def _joined(layout: Layout, kept: list[Tensor], sizes: list[int]) -> Selection:
    """The choice for an image of several squares; what no patch stands behind (a newline, CLS) stays."""
    places = torch.cat([tokens + sum(sizes[:i]) for i, tokens in enumerate(kept)])
    if layout.patch is None:
        return Selection(places)
    stays = torch.zeros(sum(sizes) + 1, dtype=torch.bool, device=places.device).index_fill(0, places, True)
    stays[-1] = True
    with declared_sync():  # how many of the kept patches are padding, which the model cuts away, is seen nowhere else
        return Selection(stays[layout.patch.to(places.device)].nonzero().flatten())


class BeforeTower:
    """The first stage of a plan, which acts before the vision tower."""

    def __init__(self, parts: Parts, plan: PrunePlan, local: Local) -> None:
        self.tower, self.plan, self.local = tower_of(parts), plan, local

    def forward(self, original: Any) -> Any:
        """The tower's forward, which runs on what is kept while pictures are encoded."""

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not self.local.encoding:
                return original(*args, **kwargs)
            if self.local.tower is not None:
                raise unseen("the vision tower ran twice in one encoding")
            self.local.tower = chosen = self._choose(self.tower.call(args, kwargs))
            return chosen.call.run(original, chosen.kept) if chosen.cuts else original(*args, **kwargs)

        return wrapper

    @torch.no_grad()
    def _choose(self, call: TowerCall) -> Chosen:
        stage, device = self.plan.stages[0], call.device
        start = mark(device)
        none = torch.empty(0, dtype=torch.long)
        images = [ImageState(VisualSpan(0, i, "image", none, raster(*grid), i)) for i, grid in enumerate(call.grids)]
        for image in images:
            image.note = left_alone(image.total, self.plan)
        cut = to_cut(images, stage)
        found: dict[int, Selection | None] = dict.fromkeys(range(len(images)))
        if cut:
            read = _reader(call, Signal.PIXELS in reads(stage.method))
            chosen = select(stage, cut, read, None, images)
            found |= {i.span.index: replace(made, features=None) for i, made in chosen if len(made) < i.total}
        kept = [
            torch.arange(image.total, device=device) if made is None else made.index
            for image, made in zip(images, found.values(), strict=True)
        ]
        return Chosen(stage, call, list(found.values()), kept, (start, mark(device)))


def _reader(call: TowerCall, pixels: bool) -> Any:
    """What a method is shown of one picture."""
    features, values = call.features(), call.pixels() if pixels else None

    def read(image: ImageState) -> VisualTokens:
        i = image.span.index
        return VisualTokens(features[i], grid=call.grids[i], pixels=None if values is None else values[i])

    return read
