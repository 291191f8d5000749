"""What is profiled, by name: a published shape with random weights, or a model and its processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlm_pruner.errors import InputError, unknown_name
from vlm_pruner.profiling.shapes import SHAPES
from vlm_pruner.video import Clip, Sampling

__all__ = ["Subject", "subject_named"]


@dataclass(frozen=True)
class Subject:
    """A model in eval mode, one prompt for it, and how to call it in a table."""

    name: str
    model: nn.Module
    inputs: dict[str, torch.Tensor]
    image: str = ""  # name of the picture or video that is looked at; empty where it is random


def subject_named(
    name: str,
    *,
    tokens: int | None = None,
    image: str | None = None,
    sampling: Sampling | None = None,
    question: str = "What is in the image?",
    device: str = "auto",
    dtype: str = "auto",
    tell: Callable[[str], None] = lambda message: None,
    **options: Any,
) -> Subject:
    """The subject of a profile.

    Args:
        name: "embedded", "embedded-video", a key of `SHAPES`, a checkpoint folder, or a hub id.
        tokens: visual tokens of the prompt, made up of several images where one has fewer; None is one image.
        image: file of a picture or a video that a model with a processor looks at; by default the demo scene of the
            package.
        sampling: which frames of a video; None is the usual ones.
        question: what it is asked. A shape reads 60 random tokens and a random image.
        device: as for `asking.open_model`.
        dtype: likewise; "auto" of a shape is bfloat16 on a GPU, float32 elsewhere.
        tell: told, before random weights are allocated, how many bytes they take, and what to know of the picture.
        options: further ones of `asking.open_model`; a shape has none.

    Raises:
        InputError: no such model, device or option; weights that do not fit the memory; tokens that no number of images
            has.
    """
    if name in SHAPES:
        if image is not None or sampling not in (None, Sampling()):
            given = "frames of a video" if image is None else repr(str(image))
            raise InputError(f"{name} is a shape with random weights: it reads a random image, not {given}")
        if asked := [key for key, value in options.items() if value]:
            raise InputError(f"{name} is a shape with random weights: it cannot be opened with {', '.join(asked)}")
        return _random(name, tokens, device, dtype, tell)

    from vlm_pruner.asking import DEMO_IMAGE, EMBEDDED, EMBEDDED_VIDEO, notes_about, open_model, open_shown

    own = [EMBEDDED, EMBEDDED_VIDEO]
    if name not in own and "/" not in name and not Path(name).exists():
        raise InputError(unknown_name("model", name, [*own, *SHAPES]) + ", a checkpoint folder, or a hub id")
    shown = open_shown(image or DEMO_IMAGE, sampling)
    tell("; ".join(f"{image}: {said}" for said in notes_about(shown)))
    loaded = open_model(name, device=device, dtype=dtype, **options)
    shown, fitted = loaded.reader.fitted(shown, sampling not in (None, Sampling()))
    tell("; ".join(f"{image}: {said}" for said in fitted))
    one = loaded.inputs(question, shown)
    visual = loaded.visual_tokens(one)
    images, odd = divmod(visual if tokens is None else tokens, visual)
    if odd or images < 1:
        what = "video" if isinstance(shown, Clip) else "image"
        raise InputError(f"the {what} has {visual} visual tokens in {name}; {tokens} is no multiple of it")
    inputs = one if images == 1 else loaded.inputs(question, [shown] * images)
    return Subject(name, loaded.model, inputs, Path(image or DEMO_IMAGE).name)


def _random(name: str, tokens: int | None, device: str, dtype: str, tell: Callable[[str], None]) -> Subject:
    from vlm_pruner.asking.loading import DTYPES, open_device

    shape, place = SHAPES[name], open_device(device)
    usual = "bfloat16" if place.type == "cuda" else "float32"
    kind = getattr(torch, dtype if dtype in DTYPES else usual)
    needed, free = shape.parameters() * kind.itemsize, _free_bytes(place)
    if free is not None and needed > free:
        raise InputError(
            f"the weights of {name} take {needed / 1e9:.1f} GB in {str(kind).removeprefix('torch.')}, "
            f"{free / 1e9:.1f} GB are free on {place}; smaller shapes: {', '.join(list(SHAPES)[:3])}"
        )
    dtype = str(kind).removeprefix("torch.")
    tell(f"{name}: {needed / 1e9:.3g} GB of random weights are allocated in {dtype} on {place}")
    inputs = shape.inputs(place, kind, tokens=tokens)
    return Subject(f"{name} (random weights)", shape.build(place, kind), inputs)


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = Path("/proc/meminfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)
