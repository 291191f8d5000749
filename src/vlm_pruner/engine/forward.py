"""The state of one forward pass, and what a pass with pictures chooses.

What outlives the pass is in the cache; what outlives the cache is in the session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlm_pruner.adapters.base import Encoded, Modality
from vlm_pruner.engine.cache import CacheState, Signature
from vlm_pruner.engine.clock import Mark
from vlm_pruner.engine.generation import Generation
from vlm_pruner.engine.masks import Places
from vlm_pruner.engine.prompt import Prompt
from vlm_pruner.engine.rows import Kept
from vlm_pruner.types import Selection

if TYPE_CHECKING:
    from vlm_pruner.engine.signals import LayerBefore

__all__ = ["Forward", "Prefill"]


@dataclass
class Prefill:
    """What is chosen of the pictures of one forward, stage after stage, and what follows from it for its layers."""

    prompt: Prompt
    encoded: dict[Modality, Encoded]
    past: int | Tensor  # places that were in the cache before
    ends: int | None = None  # the model itself went on with so many last rows alone
    levels: list[Kept | None] = field(default_factory=list)  # the places that are left after each stage
    selecting: list[tuple[Mark, Mark]] = field(default_factory=list)
    entered: Tensor | None = None  # [b, q, d] what entered the language model, if a method asks
    before: LayerBefore | None = None  # what is read of the layer before the next stage
    added: dict[int, Tensor] = field(default_factory=dict)  # features [n, d] to add before a layer, at visual places
    visual: Tensor | None = None  # [b, q] bool, those places
    scales: dict[int, Tensor] = field(default_factory=dict)  # [b, k] what the queries of a layer lack
    log_mass: dict[int, Tensor] = field(default_factory=dict)  # [b, k] of the rows left after so many stages
    rotary: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)  # (output, args, kwargs)
    shift: Tensor | None = None  # [b, 1] places closed up by repacking, all turns together

    @property
    def kept(self) -> Kept | None:
        """The places that are left by now; None = all q of them."""
        return self.levels[-1] if self.levels else None


@dataclass
class Forward:
    """One call of the model between its base pre-hook and post-hook: a prefill with pictures, or any other."""

    arguments: dict[str, Any]
    cache: Any  # among the arguments, None if there is none
    state: CacheState | None  # of the cache it goes on from, or makes
    prefill: Prefill | None  # of a forward that carries pictures
    generation: Generation | None  # the call of generate that this is a part of
    looked: bool  # pictures were found among the arguments
    first: bool  # nothing was in the cache
    length: int = 0  # q, places of the chunk
    places: dict[Signature, Places] = field(default_factory=dict)
    apart: dict[int, Places] = field(default_factory=dict)  # of the queries and keys of layers that measure distances
    steps: dict[int, tuple[Any, Any]] = field(default_factory=dict)  # decode step: masks of a layer, before and after
    made: list[tuple[Any, Any, Any]] = field(default_factory=list)  # (thing, tag, what was made of it)
    started: Mark | None = None

    @property
    def kept(self) -> Kept | None:
        """The places of the chunk that are left; None = all of them."""
        return None if self.prefill is None else self.prefill.kept

    def recall(self, thing: Any, tag: Any) -> tuple[bool, Any]:
        """(whether, what) was already made of an object in this forward: all pruned layers get the same masks and
        rotary tables.

        Objects are compared with `is`. A dictionary over `id()` would make a compiled decode step recompile every
        step, and a class of its own would break its graph.
        """
        for known, its_tag, made in self.made:
            if known is thing and its_tag == tag:
                return True, made
        return False, None

    def once(self, thing: Any, tag: Any, make: Callable[[], Any]) -> Any:
        """What was made of an object in this forward, made now if it was not yet."""
        known, made = self.recall(thing, tag)
        if not known:
            made = make()
            self.made.append((thing, tag, made))
        return made

    @property
    def earlier(self) -> dict[int, list[Selection]]:
        """What was chosen by site when `generate` sent this prompt before; where choices are noted."""
        return {} if self.generation is None or self.cache is not None else self.generation.chosen

    @property
    def rows(self) -> int:
        """Rows of the chunk that are left, padding of ragged ones included."""
        ends = None if self.prefill is None else self.prefill.ends
        return ends or (self.length if self.kept is None else self.kept.index.shape[1])

    @property
    def input(self) -> Tensor:
        """Token ids [b, q] or embeddings [b, q, d] of the chunk."""
        ids = self.arguments.get("input_ids")
        given: Tensor = self.arguments["inputs_embeds"] if ids is None else ids
        return given

    @property
    def device(self) -> torch.device:
        return self.input.device
