"""What a profile found: samples, the FLOP model beside them, the limit, and where the rest goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vlm_pruner.budget import Keep, keep_count
from vlm_pruner.flops import DecoderShape, kv_bytes, prefill_flops, stage_lengths
from vlm_pruner.profiling.timing import median

__all__ = ["Figures", "Variant"]

SPANS = ("encoder", "projector", "prefill", "selection", "decode", "first_token", "total")


@dataclass(frozen=True)
class Variant:
    """One way of running the prompt: unpruned, or pruned to one budget."""

    name: str  # "unpruned", "keep 64"
    stages: tuple[tuple[int, Keep], ...]  # (layer, keep) of every stage of the plan
    samples: dict[str, list[float]]  # span -> milliseconds of every repeat; `decode` is per token
    kv_bytes: int  # held by the cache after the last token
    peak_bytes: int  # most bytes of tensors alive at once beyond the model and its inputs

    def ms(self, span: str) -> float:
        """Median of a span in milliseconds, NaN if it was not measured."""
        return median(self.samples.get(span, []))


@dataclass(frozen=True)
class Figures:
    """Measured spans of one prompt, unpruned and pruned, beside what the FLOP model predicts.

    Spans: `encoder` and `projector` (vision), `prefill` (the decoder's first call, selection included), `selection`
    (part of prefill), `decode` (one later call of the whole model), `first_token` (from the call of `generate` to the
    end of its first forward), `total`.
    """

    model: str
    method: str
    machine: dict[str, Any]
    shape: DecoderShape
    text_tokens: int
    image_tokens: tuple[int, ...]  # per image
    new_tokens: int
    itemsize: int  # bytes of one cached number
    vision_flops: int | None  # tower and projector; None where there is no formula
    variants: tuple[Variant, ...]  # the unpruned one first
    hooks: Variant | None = None  # the first plan with keep=1.0: all hooks, nothing chosen and nothing dropped
    notes: tuple[str, ...] = field(default=())
    image: str = ""  # name of the picture
    counts: dict[str, tuple[int, int, float]] = field(
        default_factory=dict
    )  # variant -> tokens asked for, left, a layer
    about: dict[str, Any] = field(default_factory=dict)  # date and versions
    tower_saved: dict[str, int] = field(default_factory=dict)  # variant -> FLOPs that its tower was spared

    @property
    def unpruned(self) -> Variant:
        """The yardstick."""
        return self.variants[0]

    def lengths(self, stages: Sequence[tuple[int, Keep]], images: Sequence[int] | None = None) -> list[int]:
        """Tokens that enter each decoder layer under a plan."""
        images = self.image_tokens if images is None else images
        kept = [(layer, sum(keep_count(n, _at_most(keep, n)) for n in images)) for layer, keep in stages]
        return stage_lengths(self.shape.layers, self.text_tokens, sum(images), kept)

    def flops(self, variant: Variant) -> int:
        """Prefill FLOPs of the decoder by formula."""
        return prefill_flops(self.shape, self.lengths(variant.stages))

    def vision(self, variant: Variant) -> int | None:
        """FLOPs of tower and projector by formula; None where there is none."""
        spared = self.tower_saved.get(variant.name, 0)
        return None if self.vision_flops is None else self.vision_flops - spared

    def kv_predicted(self, variant: Variant) -> int:
        """Cache bytes by formula: the prompt's entries and all new tokens but the last, which is never fed back."""
        lengths = [n + self.new_tokens - 1 for n in self.lengths(variant.stages)]
        return kv_bytes(self.shape, lengths, self.itemsize)

    def ideal_prefill_ms(self, variant: Variant) -> float:
        """The limit: the unpruned time scaled by the FLOPs that remain."""
        return self.unpruned.ms("prefill") * self.flops(variant) / self.flops(self.unpruned)

    def rest_ms(self, variant: Variant) -> float:
        """Prefill time that neither ideal nor selection explains: hooks, and short inputs that run less efficiently."""
        selection = variant.ms("selection") if variant.samples.get("selection") else 0.0
        return variant.ms("prefill") - self.ideal_prefill_ms(variant) - selection

    @property
    def hooks_ms(self) -> float:
        """Prefill time that the hooks cost by themselves; NaN where that was not measured."""
        return float("nan") if self.hooks is None else self.hooks.ms("prefill") - self.unpruned.ms("prefill")

    def ideal_first_token_ms(self, variant: Variant) -> float:
        """Time to first token if prefill were ideal and selection free."""
        return self.unpruned.ms("first_token") - self.unpruned.ms("prefill") + self.ideal_prefill_ms(variant)

    def pays_from(self, variant: Variant) -> int | None:
        """Fewest tokens of one image from which this budget saves time; None if not even ten times this image does.

        Selection and rest are taken at their measured cost, too much for smaller images: the true point is lower.
        """
        least = max((keep for _, keep in variant.stages if isinstance(keep, int)), default=1)
        most = 10 * sum(self.image_tokens)
        return _first_true(least, most, lambda n: self._saves(variant, [n], variant.stages))

    def pays_up_to(self, variant: Variant) -> int | None:
        """Most tokens of this prompt's images that may be kept, at the last stage's layer, for pruning to save time."""
        layer, total = variant.stages[-1][0], sum(self.image_tokens)
        dropped = _first_true(1, total - 1, lambda d: self._saves(variant, [total], ((layer, total - d),)))
        return None if dropped is None else total - dropped

    def _saves(self, variant: Variant, images: Sequence[int], stages: Sequence[tuple[int, Keep]]) -> bool:
        cost = variant.ms("prefill") - self.ideal_prefill_ms(variant)
        rate = self.unpruned.ms("prefill") / self.flops(self.unpruned)
        full, pruned = (prefill_flops(self.shape, self.lengths(s, images)) for s in ((), stages))
        return rate * (full - pruned) > cost

    def to_dict(self) -> dict[str, Any]:
        """All samples and everything derived from them, JSON values only."""
        shared = {
            **self.about,
            "model": self.model,
            "image": self.image,
            "method": self.method,
            "machine": self.machine,
            "layers": self.shape.layers,
            "text_tokens": self.text_tokens,
            "image_tokens": list(self.image_tokens),
            "new_tokens": self.new_tokens,
            "vision_flops": self.vision_flops,
            "notes": list(self.notes),
        }
        if self.hooks is not None:
            shared["hooks_prefill_ms"] = self.hooks.samples["prefill"]
        return shared | {"variants": [self._variant_dict(v) for v in self.variants]}

    def _variant_dict(self, variant: Variant) -> dict[str, Any]:
        found = {
            "name": variant.name,
            "stages": [list(stage) for stage in variant.stages],
            "samples_ms": variant.samples,
            "median_ms": {span: variant.ms(span) for span in SPANS if variant.samples.get(span)},
            "prefill_flops": self.flops(variant),
            "vision_flops": self.vision(variant),
            "kv_bytes": variant.kv_bytes,
            "kv_bytes_predicted": self.kv_predicted(variant),
            "peak_bytes": variant.peak_bytes,
        }
        if variant.name in self.counts:
            found |= dict(zip(("asked", "kept", "layer_average"), self.counts[variant.name], strict=True))
        if variant is not self.unpruned:
            found |= {
                "ideal_prefill_ms": self.ideal_prefill_ms(variant),
                "rest_ms": self.rest_ms(variant),
                "ideal_first_token_ms": self.ideal_first_token_ms(variant),
                "pays_from_image_tokens": self.pays_from(variant),
                "pays_up_to_kept": self.pays_up_to(variant),
            }
        return found

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)


def _at_most(keep: Keep, total: int) -> Keep:
    return min(keep, total) if isinstance(keep, int) else keep


def _first_true(low: int, high: int, holds: Any) -> int | None:
    """Smallest value of low..high for which a monotone condition holds."""
    if low > high or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
