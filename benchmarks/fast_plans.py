"""Plans for the whole pipeline, of which the preset `fast` is one: a stage before the tower, before the language model,
before layer 2, or several of these. Every one makes its stages from the tokens that are left at the end."""

from __future__ import annotations

from collections.abc import Callable

from vlm_pruner.plan import TOWER, Layer, PrunePlan, Stage

__all__ = ["ALONE", "LAYERS", "STAGED", "TOKENS", "chain"]

LAYERS, TOKENS, DEEP = 8, 576, 2
Make = Callable[[int], PrunePlan]

BEFORE = ("divprune", "fps", "cen-divprune", "vlm-pruner", "vlm-pruner-plus", "erase", "random", "grid")
"""What can choose among patch embeddings or pixels."""


def chain(*stages: tuple[str, float, Layer]) -> Make:
    """`keep` -> a plan; each stage is a method, a multiple of `keep`, and a place."""

    def make(keep: int) -> PrunePlan:
        made = [Stage(name, min(TOKENS, round(keep * times)), layer) for name, times, layer in stages]
        return PrunePlan(tuple(made), asked=keep, made_by="fast")

    return make


def _name(method: str, layer: Layer) -> str:
    return f"{method} before the {'tower' if layer == TOWER else 'language model' if layer is None else 'layer 2'}"


ALONE: dict[str, Make] = {
    **{_name(name, TOWER): chain((name, 1.0, TOWER)) for name in BEFORE},
    **{_name("vlm-pruner-plus", layer): chain(("vlm-pruner-plus", 1.0, layer)) for layer in (None, DEEP)},
}
"""One stage."""

STAGED: dict[str, Make] = {}
"""Several."""
