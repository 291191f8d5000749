"""What the engine's tests share: a method that scatters its choice, plans, and what a session says was dropped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from tests.support.exact import exact
from tests.support.families import END, IMAGE, LAYERS, START, VIDEO, Prompt
from tests.support.versions import CACHE
from torch import Tensor

from vlm_pruner.engine import Session
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.types import Selection, Signal, VisualTokens
from vlm_pruner.verify.shortened import types_of

GENERATE = {
    "max_new_tokens": 4,
    "do_sample": False,
    "return_dict_in_generate": True,
    "output_logits": True,
    "suppress_tokens": [IMAGE, VIDEO, START, END],  # a random model would write placeholders
}


@final
@dataclass(frozen=True)
class Scatter(PruningMethod):
    """The tokens with the largest projection on a random direction: other images, other layers, other choices."""

    name: ClassVar[str] = "test-scatter"
    title: ClassVar[str] = "Scatter"
    source: ClassVar[str] = "test"

    seed: int = 0
    merge: bool = False

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        features = tokens.features.double()
        direction = torch.randn(
            features.shape[1], generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64
        )
        index = (features @ direction).topk(keep).indices.sort().values
        merged = (0.5 * features[index] + 0.5 * features.mean(0)).to(tokens.features.dtype) if self.merge else None
        return Selection(index, features=merged)


@final
@dataclass(frozen=True)
class Reader(PruningMethod):
    """Keeps the last tokens and remembers what it was shown."""

    name: ClassVar[str] = "test-reader"
    title: ClassVar[str] = "Reader"
    source: ClassVar[str] = "test"
    wants: ClassVar[frozenset[Signal]] = frozenset(Signal)
    seen: ClassVar[list[VisualTokens]] = []

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        self.seen.append(tokens)
        return Selection(torch.arange(len(tokens) - keep, len(tokens)))


def plan(*stages: tuple[float | int, int], merge: bool = False, positions: str = "kept") -> PrunePlan:
    """Scatter at every (keep, layer)."""
    made = tuple(Stage(Scatter(seed=layer, merge=merge), keep, layer) for keep, layer in stages)
    return PrunePlan(made, min_visual_tokens=1, positions=positions)


def dropped(session: Session, prompts: Sequence[Prompt], length: int | None = None) -> dict[int, Tensor]:
    """Layer -> [b, s] bool: the places of the padded batch that are gone by then, as the session's records say."""
    length = length or max(len(p.ids) for p in prompts)
    out = {layer: torch.zeros(len(prompts), length, dtype=torch.bool) for layer in range(LAYERS)}
    for record in session.images:
        prompt = prompts[record.row]
        places = prompt.places[record.index] + max(len(p.ids) for p in prompts) - len(prompt.ids)
        for layer, _, selection in record.stages:
            gone = torch.ones(len(places), dtype=torch.bool)
            gone[selection.index] = False
            for later in range(layer, LAYERS):
                out[later][record.row, places] = gone
    return out


def close(got: Sequence[Tensor], want: Sequence[Tensor], model: Any) -> None:
    """Equal within 2e-6 where the model computes in float64, else 5e-5; `generate` returns float32 in any case."""
    tolerance = 2e-6 if model.dtype == torch.float64 else 5e-5
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(_finite(a), _finite(b), atol=tolerance, rtol=0, equal_nan=False)


def largest_difference(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    return max(float((_finite(a) - _finite(b)).abs().max()) for a, b in zip(got, want, strict=True))


def _finite(logits: Tensor) -> Tensor:
    """In float64; words that a model rules out have the least number of their dtype, which differs between dtypes."""
    return logits.double().clamp(min=torch.finfo(torch.float32).min)


def generate(model: Any, inputs: dict[str, Any], **changes: Any) -> Any:
    """`generate` without gradients, from a clean M-RoPE state."""
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None
    with torch.no_grad(), rounding(model):
        return model.generate(**inputs, **{**GENERATE, **_renamed(changes)})


def forward(model: Any, inputs: dict[str, Any], **changes: Any) -> Any:
    """One forward without gradients, from a clean M-RoPE state."""
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None
    with torch.no_grad(), rounding(model):
        return model(**inputs, **_renamed(changes))


def rounding(model: Any) -> AbstractContextManager[None]:
    """As in `exact`, where the decoder has recurrences."""
    recurrent = "linear_attention" in types_of(model)
    return exact(model.base_model.get_decoder()) if recurrent else nullcontext()


def _renamed(changes: dict[str, Any]) -> dict[str, Any]:
    """`cache=` under the name that the installed transformers give it."""
    return {CACHE if name == "cache" else name: value for name, value in changes.items()}
