"""Plans for the whole pipeline, of which the preset `fast` is one: a stage before the tower, before the language model,
before layer 2, or several of these. Each makes its stages from the number of tokens that are left at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vlm_pruner.plan import TOWER, Layer, PrunePlan, Stage

__all__ = ["ALONE", "DEEP", "LAYERS", "RIVALS", "STAGED", "TOKENS", "Make", "chain"]

LAYERS, TOKENS, DEEP = 8, 576, 2
Make = Callable[[int], PrunePlan]

BEFORE = ("divprune", "cen-divprune", "vlm-pruner", "vlm-pruner-plus", "random", "grid")
"""What can choose among patch embeddings, at any number of tokens."""


def chain(*stages: tuple[str, float, Layer]) -> Make:
    """`keep` -> a plan; each stage is a method, a multiple of `keep` that it leaves, and a place."""

    def make(keep: int) -> PrunePlan:
        made = [Stage(name, min(TOKENS, round(keep * times)), layer) for name, times, layer in stages]
        return PrunePlan(tuple(made))

    return make


def _staged() -> Iterator[tuple[str, Make]]:
    """Several stages; the last one is always VLM-Pruner+, which leaves `keep`."""
    for first in ("divprune", "cen-divprune", "vlm-pruner"):
        for times in (2, 3, 4):
            for layer in (None, DEEP):
                then = "the language model" if layer is None else "layer 2"
                yield (
                    f"{times} x by {first} before the tower, then before {then}",
                    chain((first, times, TOWER), ("vlm-pruner-plus", 1, layer)),
                )
    for times in (2, 3):
        yield (
            f"{times} x before the language model, then before layer 2",
            chain(("vlm-pruner-plus", times, None), ("vlm-pruner-plus", 1, DEEP)),
        )
    yield (
        "4 x by divprune before the tower, 2 x before the language model, then before layer 2",
        chain(("divprune", 4, TOWER), ("vlm-pruner-plus", 2, None), ("vlm-pruner-plus", 1, DEEP)),
    )


ALONE: dict[str, Make] = {
    **{f"{name} before the tower": chain((name, 1, TOWER)) for name in BEFORE},
    "vlm-pruner-plus before the language model": chain(("vlm-pruner-plus", 1, None)),
    "vlm-pruner-plus before layer 2": chain(("vlm-pruner-plus", 1, DEEP)),
}
"""One stage."""

STAGED: dict[str, Make] = dict(_staged())
"""Several stages."""

RIVALS: dict[str, Make] = {
    "vlm-pruner": chain(("vlm-pruner", 1, DEEP)),
    "divprune": chain(("divprune", 1, None)),
}
"""What the preset is compared with at equal time, beside down-sampled pictures."""
