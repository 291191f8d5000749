"""What stands in a prompt: text, padding, the tokens of every image. Known on the host after one read of the device."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vlm_pruner.adapters.base import Adapter, Encoded, Modality, VisualSpan
from vlm_pruner.adapters.spans import deal_out, split_frames
from vlm_pruner.budget import Keep, keep_count
from vlm_pruner.engine.release import unseen
from vlm_pruner.errors import UnsupportedModelError
from vlm_pruner.plan import TOWER, PrunePlan, Stage
from vlm_pruner.types import Selection

__all__ = ["ImageState", "Prompt", "left_alone", "read_prompt", "to_cut"]


@dataclass
class ImageState:
    """One image on its way through the stages."""

    span: VisualSpan
    note: str = ""  # why it is left alone
    stages: list[tuple[int, Keep, Selection]] = field(default_factory=list)  # (site, keep, choice) where it was cut
    counts: list[int] = field(default_factory=list)  # survivors after every stage of the plan so far
    tower: Selection | None = None  # what was chosen before the vision tower
    most: int | None = None  # tokens that its age leaves it; None = all
    mass: Tensor | None = None  # [m] tokens that each survivor is the mean of, where a stage counts them; None = 1

    @property
    def total(self) -> int:
        return self.span.layout.tokens

    @property
    def index(self) -> Tensor | None:
        """[m] survivors in the image's own coordinates, on the device; None = all."""
        return self.stages[-1][2].index if self.stages else None

    @property
    def count(self) -> int:
        return len(self.stages[-1][2]) if self.stages else self.total

    def budget(self, stage: Stage) -> int:
        """Tokens that `stage` leaves of this image."""
        if self.tower is not None and stage.layer == TOWER:
            return len(self.tower)
        if self.note:
            return self.count
        most = self.count if self.most is None else min(self.count, self.most)
        if isinstance(stage.keep, int) and stage.keep >= self.total:
            return most
        return min(most, keep_count(self.total, stage.keep))


@dataclass
class Prompt:
    """The chunk of q places that a forward with images prefills, in every row of the batch."""

    places: dict[Modality, Tensor]  # [b, q] bool on the host, placeholders by modality
    real: Tensor  # [b, q] bool on the host, False at padding
    repeats: Tensor  # [b] bool on the host, True where a row says the same as the one before
    end: int  # places of the chunk that the caller passed; guesses of what comes next stand behind them
    images: list[ImageState] = field(default_factory=list)

    @cached_property
    def visual(self) -> Tensor:
        """[b, q] bool on the host."""
        return torch.stack(list(self.places.values())).any(0)

    @property
    def copies(self) -> int:
        """How many rows beams or samples have made of each; 1 also where several questions share what was encoded."""
        copies = next((image.span.copies for image in self.images), 1)
        alike = all(bool(self.repeats[row]) for row in range(len(self.repeats)) if row % copies)
        return copies if alike else 1

    @cached_property
    def tail(self) -> int:
        """Places behind the last visual token of any row: what may be cropped again (assisted decoding)."""
        last = self.visual.any(0).nonzero()
        return int(self.real.shape[1] - 1 - last[-1]) if len(last) else self.real.shape[1]

    def text_after(self, span: VisualSpan) -> Tensor:
        """[t] places of the text behind an image, on the host."""
        text = self.real[span.row] & ~self.visual[span.row]
        text[: int(span.slots[-1]) + 1] = text[self.end :] = False
        return text.nonzero().flatten()

    def last(self, row: int) -> Tensor:
        """[1] the last place of the prompt in a row, on the host."""
        return self.real[row, : self.end].nonzero()[-1]

    def row_lengths(self, stage: int = -1) -> list[int]:
        """Tokens of every row that are there after a stage, by its number; by default the last that has run."""
        lengths: list[int] = (self.real & ~self.visual).sum(1).tolist()
        for image in self.images:
            lengths[image.span.row] += image.counts[stage]
        return lengths

    def locate(self, adapter: Adapter, config: Any, encoded: dict[Modality, Encoded], plan: PrunePlan) -> None:
        """Fill `images` from what was encoded, once.

        Raises:
            UnsupportedModelError: placeholders that nothing known was encoded for.
        """
        if self.images:
            return
        for modality, places in self.places.items():
            if modality not in encoded:
                if bool(places.any()):
                    raise UnsupportedModelError(
                        f"the {modality} features of this prompt were computed elsewhere, so that the places of its "
                        f"tokens are unknown: encode the {modality}s inside the pruner (and without prefill_chunk_size)"
                    )
                continue
            with torch.device("cpu"):  # tables of the host, wherever the caller's default device is
                spans = adapter.spans(config, places, modality) or deal_out(
                    getattr(adapter, f"{modality}_layouts")(config, encoded[modality]), places, modality, adapter.joins
                )
                if plan.per == "frame" and modality == "video":
                    spans = [frame for span in spans for frame in split_frames(span)]
            self.images += [ImageState(s) for s in spans]
            if plan.stages[0].layer == TOWER:
                self._locate_before(encoded[modality].tower, modality)
        self.images.sort(key=lambda image: (image.span.row, int(image.span.slots[0])))
        newer: Counter[int] = Counter()
        for image in reversed(self.images):
            most = plan.most(image.total, newer[image.span.row])
            newer[image.span.row] += 1
            image.most = None if most == image.total else most
            image.note = left_alone(image.total, plan, image.most)

    def _locate_before(self, chosen: Any, modality: Modality) -> None:
        """What was chosen before the tower, for the images of a modality."""
        if chosen is None:
            raise unseen("a stage before the vision tower never saw it run")
        for image in self.images:
            if image.span.modality == modality:
                image.tower = chosen.of(image.span)


def to_cut(images: list[ImageState], stage: Stage) -> list[ImageState]:
    """Those of `images` that `stage` may shorten: all that are larger than their budget, under a ceiling all, and under
    a mean all as soon as one is larger than it."""
    larger = [image for image in images if image.budget(stage) < image.count]
    if stage.method.budget == "ceiling" or (larger and stage.method.budget == "mean"):
        return [image for image in images if not image.note]
    return larger


def left_alone(total: int, plan: PrunePlan, most: int | None = None) -> str:
    """Why an image of `total` tokens is not pruned; empty where it is, as where its age leaves it `most` of them."""
    if total < plan.min_visual_tokens:
        return f"left alone: {total} tokens are fewer than min_visual_tokens={plan.min_visual_tokens}"
    exact = [s.keep for s in plan.stages if isinstance(s.keep, int) and s.method.budget == "fixed"]
    least = min(exact) if len(exact) == len(plan.stages) and most is None else 0
    return f"left alone: {total} tokens are fewer than keep={least}" if total < least else ""


def read_prompt(adapter: Adapter, base: Any, arguments: dict[str, Any], end: int | None = None) -> Prompt | None:
    """The prompt of a forward, None if no placeholder stands in it. The engine's one read of the device per prefill.

    Args:
        end: places of the chunk that the caller passed; None = all.
    """
    ids = arguments.get("input_ids")
    tokens = adapter.placeholders(base.config)
    if ids is not None:
        masks = [ids == token for token in tokens.values()]
        same = ids == ids.roll(1, 0)
    else:
        embeds, table = arguments["inputs_embeds"], base.get_input_embeddings()
        rows = [table(torch.tensor(token, device=embeds.device)) for token in tokens.values()]
        masks = [(embeds == row).all(-1) for row in rows]
        same = (embeds == embeds.roll(1, 0)).all(-1)
    attention = arguments.get("attention_mask")
    real = torch.ones_like(masks[0])
    if isinstance(attention, Tensor) and attention.dim() == 2:
        real = attention[:, -real.shape[1] :].bool()
    host = torch.stack([*masks, real.to(masks[0].device), same]).cpu()
    if not bool(host[:-2].any()):
        return None
    return Prompt(dict(zip(tokens, host, strict=False)), host[-2], host[-1].all(1), end or host.shape[-1])
