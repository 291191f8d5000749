"""The side that makes: rows of the encoder, as many as were announced, and where they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.logger import init_logger

from vlm_pruner.adapters import adapter_for
from vlm_pruner.adapters.base import Encoded, Layout, Modality
from vlm_pruner.adapters.spans import deal_out
from vlm_pruner.errors import UnsupportedModelError, VlmPrunerError
from vlm_pruner.plan import PrunePlan
from vlm_pruner.serving.vllm.counting import field
from vlm_pruner.serving.vllm.places import with_places
from vlm_pruner.serving.vllm.wanted import kept_of, read
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["Pruning", "exactly", "layouts_of"]

logger = init_logger(__name__)


class Pruning:
    """Mixed into a model of vLLM: `embed_multimodal` gives the rows that are left of every picture."""

    rotary: bool = False  # places its tokens in time, height and width
    modalities: tuple[str, ...] = ("image",)  # that are pruned
    vlm_pruner_ready: bool = False  # set by the runner, where it takes places off the rows again
    supports_multimodal_pruning = True

    def embed_multimodal(self, **kwargs: object) -> Any:
        """As the model's own; with the plan of each picture beside its pixels."""
        held: dict[str, Any] = {m: kwargs.pop(field(m), None) for m in self.modalities}
        rows = super().embed_multimodal(**kwargs)  # type: ignore[misc]
        if rows is None or not len(rows):
            return rows
        found = [(modality, data) for modality, data in held.items() if data is not None]
        if not found:
            return [self._stays(one) for one in rows] if self.rotary else rows
        ((modality, data),) = found
        plans = [read(bytes(one.tolist()), self.rotary) for one in data]
        rows = [one.flatten(0, -2) for one in rows]  # [1, n, d] of each of several videos of LLaVA-OneVision
        return self._pruned(rows, plans, modality, kwargs)

    def _pruned(
        self, rows: Sequence[Tensor], plans: Sequence[PrunePlan | None], modality: Any, arguments: Mapping[str, Any]
    ) -> list[Tensor]:
        layouts = layouts_of(self.config, arguments, [len(one) for one in rows], modality)  # type: ignore[attr-defined]
        width = self.config.get_text_config().hidden_size  # type: ignore[attr-defined]
        made = []
        for number, (one, plan, layout) in enumerate(zip(rows, plans, layouts, strict=True)):
            keep = kept_of(plan, len(one))
            if plan is None or keep == len(one):
                made.append(self._stays(one) if self.rotary else one)
                continue
            selection = _select(one[:, :width], plan, layout, keep)
            left = one[selection.index]
            if selection.features is not None:
                left[:, :width] = selection.features.to(left.dtype)
            if self.rotary:
                if not self.vlm_pruner_ready:
                    raise RuntimeError("vlm-pruner: this runner of vLLM takes no positions from the encoder")
                kept = selection.index
                left = self.place(left, kept, layout, modality, arguments, number)  # type: ignore[attr-defined]
            made.append(left)
        return made

    def _stays(self, rows: Tensor) -> Tensor:
        return with_places(rows, None) if self.vlm_pruner_ready else rows


def layouts_of(config: Any, arguments: Mapping[str, Any], counts: Sequence[int], modality: Modality) -> list[Layout]:
    """Where the tokens of each picture lie, as the library knows it of this family.

    Args:
        arguments: of the encoder.
        counts: tokens of each picture.

    Raises:
        UnsupportedModelError: the model gives another number of tokens than its family should.
    """
    adapter = adapter_for(config.model_type)
    name = next((key for key, held in arguments.items() if key.startswith("pixel_values") and held is not None), "")
    pixels = arguments.get(name)
    if isinstance(pixels, list):  # of several shapes: one after the other
        found = []
        for number, count in enumerate(counts):
            own = {key: held[number : number + 1] for key, held in arguments.items() if held is not None}
            found += layouts_of(config, own | {name: pixels[number][None]}, [count], modality)
        return found
    shape = tuple(pixels.shape) if isinstance(pixels, Tensor) else (len(counts),)
    lengths = [sum(counts) // shape[0]] * shape[0] if adapter.joins else list(counts)  # of tiles, or of pictures
    encoded = Encoded(arguments, shape, lengths)
    layouts = getattr(adapter, f"{modality}_layouts")(config, encoded)
    places = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    spans = deal_out(layouts, places, modality, adapter.joins)
    found = [span.layout for span in spans]
    if [layout.tokens for layout in found] != list(counts):
        raise UnsupportedModelError(f"pictures of {list(counts)} tokens, of which {found} are known")
    return found


@torch.inference_mode()
def _select(features: Tensor, plan: PrunePlan, layout: Layout, keep: int) -> Selection:
    """The tokens that are kept. Whatever happens there are `keep` of them: anything else would end the server."""
    tokens = VisualTokens(features=features, grid=layout.grid, position=layout.position)
    try:
        return exactly(plan.stages[0].method.select(tokens, keep), len(features), keep)
    except VlmPrunerError as error:  # rows that are not finite: the answer is lost, other requests are not
        logger.error("vlm-pruner: %s; every n-th token is kept of this picture", error)
        return Selection(torch.arange(keep, device=features.device) * len(features) // keep)


def exactly(selection: Selection, total: int, keep: int) -> Selection:
    """The selection with `keep` of `total` tokens: a method of somebody's own may be wrong about it."""
    if len(selection) == keep:
        return selection.validate(total, keep, values=False)
    chosen = torch.zeros(total, dtype=torch.bool, device=selection.index.device)
    chosen[selection.index] = True
    order = torch.cat([chosen.nonzero().flatten(), (~chosen).nonzero().flatten()])[:keep]
    return Selection(order.sort().values)
