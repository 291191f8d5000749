"""From the arguments of `--model_args` to a model and what is done to its pictures; what is not known is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_pruner.asking import Loaded, open_model
from vlm_pruner.budget import Keep, check_keep, parse_keep
from vlm_pruner.errors import InputError, PlanError, unknown_name
from vlm_pruner.evaluation.cells import DOWNSAMPLE, build_grid
from vlm_pruner.evaluation.questions import picture_tokens
from vlm_pruner.evaluation.runner import shrink
from vlm_pruner.methods import create
from vlm_pruner.plan import PrunePlan, parse_layer
from vlm_pruner.video import Sampling

__all__ = ["KNOWN", "Treatment", "open_with", "sampling_of", "treatment"]

KNOWN = (
    "answers", "batch_size", "device", "dtype", "fps", "frames", "keep", "layer", "max_batch_size", "max_pixels",
    "method", "min_pixels", "plan", "positions", "pretrained",
)  # fmt: skip
"""Every argument but the parameters of the method, which go by their own names."""


@dataclass(frozen=True)
class Treatment:
    """What is done to every picture: a plan, and perhaps less detail before that."""

    plan: PrunePlan
    label: str
    detail: int | None = None  # patches' worth of detail that is left, of `tokens`; the picture keeps its size
    tokens: int | None = None
    area: float | None = None  # share of the picture's area that is left: the picture itself becomes smaller

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture that the processor gets."""
        if self.detail is not None and self.tokens is not None:
            return shrink(image, self.detail, self.tokens)
        if self.area is None:
            return image
        side = self.area**0.5
        small = (max(1, round(image.width * side)), max(1, round(image.height * side)))
        return image.resize(small, Image.Resampling.LANCZOS)


def treatment(
    loaded: Loaded,
    *,
    method: str = "none",
    keep: Any = None,
    layer: Any = None,
    plan: str | None = None,
    positions: str = "kept",
    params: Mapping[str, Any] | None = None,
) -> Treatment:
    """What the arguments mean on this model.

    Args:
        keep: a budget as lmms-eval's parser left it: a number, or its text.
        method: a registered one, "none", or "downsample": fewer tokens by a smaller picture.
        plan: a JSON file of a plan; nothing else may be said beside it.
        params: of the method.

    Raises:
        InputError: an argument that is not known, or a file that cannot be read.
        PlanError: a plan that cannot be carried out.
    """
    if plan is not None:
        if method != "none" or keep is not None or layer is not None or params:
            raise PlanError("plan= already says which method, where and how much: leave method, keep and layer out")
        return Treatment(_plan_of(plan).check(loaded.layers), Path(plan).stem)
    budget = None if keep is None else parse_keep(keep) if isinstance(keep, str) else check_keep(keep)
    if method == DOWNSAMPLE:
        if budget is None:
            raise PlanError("how many tokens should downsample leave? keep=64 (per image) or keep=0.111 (a share)")
        return _smaller(loaded, budget)
    known = create(method).params()
    if unknown := [name for name in params or {} if name not in known]:
        raise InputError(unknown_name("model argument", unknown[0], {*KNOWN, *known}))
    place = None if layer is None else parse_layer(str(layer))
    made = loaded.plan(method, budget, place, positions=positions, **(params or {}))
    return Treatment(made, method)


def sampling_of(fps: Any, frames: Any) -> Sampling:
    """Which frames of a video are shown; None for what was not said.

    Raises:
        InputError: both, or what is no number of frames.
    """
    try:
        return Sampling(None if fps is None else float(fps), None if frames is None else int(frames))
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"fps={fps!r}, frames={frames!r} are not numbers of frames") from error


def _smaller(loaded: Loaded, budget: Keep) -> Treatment:
    tokens = picture_tokens(loaded.model)
    if tokens is not None:
        (cell,) = build_grid([DOWNSAMPLE], [budget], layers=loaded.layers, tokens=tokens).cells
        return Treatment(cell.plan, DOWNSAMPLE, cell.small_picture, tokens)
    if not isinstance(budget, float):
        raise PlanError(f"pictures of this model have no fixed number of tokens: give a share (0.111), not {budget}")
    return Treatment(PrunePlan.of("none", num_layers=loaded.layers), DOWNSAMPLE, area=budget)


def _plan_of(name: str) -> PrunePlan:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the plan {name!r}: {error}") from error
    return PrunePlan.from_json(text)


def open_with(
    pretrained: str, min_pixels: Any = None, max_pixels: Any = None, *, device: str = "auto", **options: Any
) -> Loaded:
    """The model and its processor, pictures limited to so many pixels. `options` are further ones of `open_model`.

    Among several processes "auto" is each one's own GPU.

    Raises:
        InputError: no such model, or one whose processor has no such limit.
    """
    if device == "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch

        if torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    loaded = open_model(pretrained, device=device, **options)
    limits = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    if given := {name: int(value) for name, value in limits.items() if value is not None}:
        images: Any = getattr(loaded.processor, "image_processor", None)
        size = {name: value for name, value in dict(getattr(images, "size", None) or {}).items() if value is not None}
        if not set(limits) <= size.keys():
            raise InputError(f"the processor of {pretrained!r} has no min_pixels and max_pixels, but {size}")
        images.size = size | given
    return loaded
