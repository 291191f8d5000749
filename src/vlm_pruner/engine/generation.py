"""One call of `generate`: how long the prompt is that the caller passed, and what was chosen for it.

The first forward of a call may carry more than the prompt: with prompt lookup or an assistant, guesses of what comes
next stand behind it. Without a cache every forward carries the prompt again. With guidance a prompt without pictures is
run beside it. None of this may change what is kept or reported: the question is what the caller asked, and it is asked
once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vlm_pruner.types import Selection

__all__ = ["Generation"]


@dataclass
class Generation:
    """Made when `generate` is called, gone when it returns."""

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
