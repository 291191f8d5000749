"""Processors of pictures and videos for the families whose own ones cannot be built without torchvision.

The prompt is written by the family's own processor class, which is given readers of pictures and videos that do in
torch what the stock ones do in torchvision, to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.video_llava.image_processing_video_llava import VideoLlavaImageProcessor
from transformers.utils import PushToHubMixin
from transformers.utils.hub import cached_file
from transformers.video_utils import VideoMetadata

from vlm_pruner.errors import InputError
from vlm_pruner.video.pixels import bicubic, normalised, patches

__all__ = ["FrameReader", "NativeReader", "OnevisionPictures", "QwenPictures", "stand_in"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


class _TorchBackend(PilBackend):  # type: ignore[misc]
    """What Pillow does in the stock class, done by torch."""

    def resize(self, image: NDArray[Any], size: Any, resample: Any = None, **unused: Any) -> NDArray[Any]:
        return bicubic(torch.from_numpy(np.ascontiguousarray(image)), size.height, size.width).numpy()

    def rescale(self, image: NDArray[Any], scale: float, **unused: Any) -> NDArray[Any]:
        return image  # `normalize` does both at once

    def normalize(self, image: NDArray[Any], mean: Any, std: Any, **unused: Any) -> NDArray[Any]:
        return normalised(torch.from_numpy(np.array(image)), mean, std, self.rescale_factor).numpy()


class QwenPictures(Qwen2VLImageProcessorPil, _TorchBackend):  # type: ignore[misc]
    """Pictures as `Qwen2VLImageProcessor` reads them."""


class OnevisionPictures(LlavaOnevisionImageProcessorPil, _TorchBackend):  # type: ignore[misc]
    """Pictures as `LlavaOnevisionImageProcessor` reads them."""


@dataclass(frozen=True)
class _Frames(PushToHubMixin):  # type: ignore[misc]  # as which a processor writes it down
    """Fields that all readers of videos have, as their files name them."""

    size: Mapping[str, int]
    image_mean: Sequence[float] = CLIP_MEAN
    image_std: Sequence[float] = CLIP_STD
    rescale_factor: float = 1 / 255

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    def like(self, told: Mapping[str, Any]) -> Any:
        """The same with what a file of a checkpoint tells; `min_pixels` and `max_pixels` are older names of edges."""
        known = {one.name for one in fields(self)} - {"together"}
        given = {name: value for name, value in told.items() if name in known and value is not None}
        edges = {"shortest_edge": told.get("min_pixels"), "longest_edge": told.get("max_pixels")}
        given["size"] = {**given.get("size", self.size), **{k: v for k, v in edges.items() if v is not None}}
        return replace(self, **given)

    def _pixels(self, frames: Tensor, height: int, width: int) -> Tensor:
        resized = bicubic(frames, height, width)
        return normalised(resized, self.image_mean, self.image_std, self.rescale_factor)


@dataclass(frozen=True)
class FrameReader(_Frames):
    """Every frame squeezed to one size: as `LlavaOnevisionVideoProcessor` reads videos."""

    def __call__(self, videos: Any, **given: Any) -> BatchFeature:
        made = [self._pixels(frames, self.size["height"], self.size["width"]) for frames in _tensors(videos)]
        same = len({one.shape for one in made}) == 1
        return _told({"pixel_values_videos": torch.stack(made) if same else made}, given)


@dataclass(frozen=True)
class NativeReader(_Frames):
    """Frames in about their own size, in patches: as the video processors of the Qwen families read them.

    The size of a frame is bounded by its own pixels, or, with `together`, by those of the whole video.
    """

    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    cap_pixels_per_frame: bool = False
    max_video_tokens: int = 128000
    together: bool = False

    def __call__(self, videos: Any, **given: Any) -> BatchFeature:
        made = [self._patches(frames) for frames in _tensors(videos)]
        grid = torch.tensor([grid for _, grid in made])
        return _told({"pixel_values_videos": torch.cat([one for one, _ in made]), "video_grid_thw": grid}, given)

    def _patches(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        height, width = self._fitting(len(frames), *frames.shape[-2:])
        pixels = self._pixels(frames, height, width)
        return patches(pixels, self.patch_size, self.merge_size, self.temporal_patch_size)

    def _fitting(self, count: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) at which frames are read.

        Raises:
            ValueError: one side is more than 200 times as long as the other.
        """
        factor, least, most = self.patch_size * self.merge_size, self.size["shortest_edge"], self.size["longest_edge"]
        if self.together:
            return self._fitting_together(count, height, width, factor)
        if self.cap_pixels_per_frame:
            whole = int(self.max_video_tokens * factor * factor * 0.9)
            most = max(min(most, whole * self.temporal_patch_size // count), int(least * 1.05))
        found: tuple[int, int] = smart_resize(height, width, factor, least, most)
        return found

    def _fitting_together(self, count: int, height: int, width: int, factor: int) -> tuple[int, int]:
        from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as fit

        least, most = self.size["shortest_edge"], self.size["longest_edge"]
        if self.cap_pixels_per_frame:
            each = max(min(self.max_video_tokens * factor * factor, most // count), int(least * 1.05))
            most = each * count
        found: tuple[int, int] = fit(count, height, width, self.temporal_patch_size, factor, least, most)
        return found


def _tensors(videos: Any) -> list[Tensor]:
    """[t, 3, h, w] uint8 of one or several videos, given as that or as [t, h, w, 3]."""
    every = videos if isinstance(videos, list | tuple) else [videos]
    tensors = [torch.as_tensor(one) for one in every]
    if any(one.dim() != 4 or one.dtype != torch.uint8 for one in tensors):
        raise InputError("without torchvision, videos are uint8 [t, 3, h, w] or [t, h, w, 3]")
    return [one if one.shape[1] == 3 else one.permute(0, 3, 1, 2).contiguous() for one in tensors]


def _told(data: dict[str, Any], given: Mapping[str, Any]) -> BatchFeature:
    """Pixels, and the times of their frames where the prompt has these."""
    if given.get("return_metadata"):
        told = given.get("video_metadata") or []
        told = [told] if isinstance(told, Mapping) else told
        data["video_metadata"] = [one if isinstance(one, VideoMetadata) else VideoMetadata(**one) for one in told]
    return BatchFeature(data)


_QWEN = (QwenPictures, NativeReader(size={"shortest_edge": 128 * 28**2, "longest_edge": 768 * 28**2}))
_QWEN3 = NativeReader(
    size={"shortest_edge": 128 * 32**2, "longest_edge": 768 * 32**2}, image_mean=HALF, image_std=HALF, patch_size=16,
    max_video_tokens=768, together=True,
)  # fmt: skip
STAND_INS: dict[str, tuple[type[Any], Any]] = {
    "Qwen2VLProcessor": _QWEN,
    "Qwen2_5_VLProcessor": _QWEN,
    "Qwen3VLProcessor": (QwenPictures, _QWEN3),
    "LlavaOnevisionProcessor": (OnevisionPictures, FrameReader(size={"height": 384, "width": 384})),
    "VideoLlavaProcessor": (VideoLlavaImageProcessor, FrameReader(size={"height": 224, "width": 224})),
}
"""By the family's processor: how it reads pictures, and videos where nothing is said."""


def stand_in(name: str, model_type: str, source: Mapping[str, Any]) -> Any | None:
    """The processor of a checkpoint where torchvision is not installed; None where the family's own is to be built.

    Args:
        name: a folder or an id of the hub.
        source: further arguments of `from_pretrained`, as `revision`.
    """
    title = str(PROCESSOR_MAPPING_NAMES.get(model_type, ""))
    if title not in STAND_INS or find_spec("torchvision") is not None:
        return None
    import transformers

    pictures, usual = STAND_INS[title]
    own: Any = getattr(transformers, title)
    kind: Any = type(title, (own,), {"check_argument_for_proper_class": lambda self, name, argument: type(argument)})
    revision = {"revision": source["revision"]} if source.get("revision") else {}
    whole, _ = own.get_processor_dict(name, **revision)
    told = whole.get("video_processor") or _first(name, revision)
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source)
    reader = usual.like(told)
    if isinstance(reader, FrameReader) and "height" not in reader.size:
        return None  # frames that are cropped are read by the family's own processor alone
    parts = {
        "image_processor": pictures.from_pretrained(name, **revision), "video_processor": reader, "tokenizer": tokenizer
    }  # fmt: skip
    return kind.from_args_and_dict([parts[part] for part in own.get_attributes()], whole)


def _first(name: str, revision: Mapping[str, str]) -> dict[str, Any]:
    """What the first of the files says that may describe a reader of videos."""
    for file in ("video_preprocessor_config.json", "preprocessor_config.json"):
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **revision)
        if path is not None:
            found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            return found
    return {}
