"""The state that hooks share: of a call of `generate`, of a forward in it, of the pictures in one, of a thread.

What outlives the pass is in the cache; what outlives the cache is in the session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import Tensor

from vlm_pruner.adapters.base import Encoded, Modality
from vlm_pruner.engine.cache import CacheState, Signature
from vlm_pruner.engine.clock import Mark
from vlm_pruner.engine.masks import Places
from vlm_pruner.engine.prompt import Prompt
from vlm_pruner.engine.rows import Kept
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.types import Selection

if TYPE_CHECKING:
    from vlm_pruner.engine.signals import LayerBefore

__all__ = ["Forward", "Generation", "Local", "Prefill"]


@dataclass
class Generation:
    """One call of `generate`: how long the prompt is that the caller passed, and what was chosen for it.

    Its first forward may carry more than the prompt: with prompt lookup or an assistant, guesses of what comes next
    stand behind it. Without a cache every forward carries the prompt again. With guidance a prompt without pictures is
    run beside it. None of this may change what is kept or reported: the question is what the caller asked, and it is
    asked once.
    """

    prompt: int | None  # tokens of the prompt, padding and what is cached of it included; None where it is not known
    chosen: dict[int, list[Selection]] = field(default_factory=dict)  # by site, of the images that it shortens
    noted: bool = False  # a forward with pictures was
    cache: Any = None  # that it filled
    copies: int = 1  # rows that beams or samples have made of each

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generation:
        """From the arguments of `generate`: the mask is as long as the prompt where the ids are those of one turn."""
        mask = kwargs.get("attention_mask")
        given = (mask, *args[:1], *(kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds")))
        return cls(next((one.shape[1] for one in given if isinstance(one, Tensor)), None))

    def end(self, past: int) -> int | None:
        """Places of the prompt in a chunk that goes on from `past` places; None = all that it holds."""
        return self.prompt - past if self.prompt is not None and self.prompt > past else None

    def aside(self, cache: Any) -> bool:
        """Is a forward without pictures, on this cache, one that goes along with that of the pictures?"""
        return self.noted and (self.cache is None or cache is not self.cache)


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


class Local(threading.local):
    """What the hooks of one thread share: threads may run the same model at the same time."""

    forward: Forward | None = None
    logits_to_keep: Any = 0
    encoded: dict[Any, Any] | None = None  # notes of generate's encoding step, between outer and base pre-hook
    generation: Generation | None = None  # the call of generate that is going on
    unused: str | None = None  # modality that was encoded outside of a forward, and that no forward was given yet
    left: int | None = None  # rows of the base model's output, after a forward with pictures
    quiet: bool = False  # the engine itself calls rotary_emb
    encoding: bool = False  # inside get_image_features or get_video_features
    tower: Any = None  # what was chosen before the vision tower in there

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise UnsupportedModelError(
            "a pruner and the model it is active on can be neither copied nor pickled: leave its block or detach "
            "it first"
        )

    @property
    def prefill(self) -> Prefill | None:
        """What the pictures of the forward that is going on have come to."""
        return None if self.forward is None else self.forward.prefill
