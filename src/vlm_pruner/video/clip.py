"""The frames of a video that a model is shown, and when each of them is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlm_pruner.errors import InputError

__all__ = ["Clip"]


@dataclass(frozen=True)
class Clip:
    """Frames of equal size, in the order of time."""

    frames: Tensor = field(repr=False)  # [t, 3, h, w] uint8, RGB
    times: tuple[float, ...]  # [t] seconds from the first frame of the video
    fps: float  # frames a second of the whole video, on average
    duration: float  # of the whole video, seconds
    name: str = ""  # of the file or folder
    notes: tuple[str, ...] = ()  # what a person may not expect, a sentence each

    def __post_init__(self) -> None:
        if self.frames.dim() != 4 or self.frames.shape[1] != 3 or self.frames.dtype != torch.uint8:
            got = f"{self.frames.dtype} {tuple(self.frames.shape)}"
            raise InputError(f"the frames of a video are uint8 [t, 3, h, w], got {got}")
        if not len(self) or len(self) != len(self.times):
            raise InputError(
                f"a video needs one time for each frame, got {len(self.times)} times for {len(self)} frames"
            )

    @classmethod
    def of(cls, pictures: Sequence[Image.Image], fps: float, *, name: str = "", notes: Sequence[str] = ()) -> Clip:
        """A video of pictures of equal size, `fps` of them a second.

        Raises:
            InputError: no pictures, pictures of several sizes, or a rate that is none.
        """
        if not pictures:
            raise InputError("a video has at least one frame")
        sizes = {picture.size for picture in pictures}
        if len(sizes) > 1:
            told = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
            raise InputError(f"the frames of a video have one size; these have {len(sizes)}: {told}")
        if not fps > 0:
            raise InputError(f"fps={fps!r} is not a rate: give a number of frames a second above 0")
        frames = torch.stack([torch.from_numpy(np.array(one.convert("RGB"))) for one in pictures]).permute(0, 3, 1, 2)
        times = tuple(number / fps for number in range(len(pictures)))
        return cls(frames.contiguous(), times, fps, len(pictures) / fps, name, tuple(notes))

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a frame."""
        return self.frames.shape[3], self.frames.shape[2]

    def picture(self, number: int) -> Image.Image:
        """One of the frames, from 0 on."""
        return Image.fromarray(self.frames[number].permute(1, 2, 0).numpy())

    def pictures(self) -> list[Image.Image]:
        """All of them."""
        return [self.picture(number) for number in range(len(self))]

    def lasting(self, frames: int) -> Clip:
        """At least so many frames: the last one is repeated at its time."""
        more = frames - len(self)
        if more <= 0:
            return self
        last = self.frames[-1:].expand(more, -1, -1, -1)
        return replace(self, frames=torch.cat([self.frames, last]), times=(*self.times, *self.times[-1:] * more))

    def thinned(self, frames: int) -> Clip:
        """At most so many frames, at equal distances."""
        if frames >= len(self):
            return self
        kept = [number * len(self) // frames for number in range(frames)]
        return replace(self, frames=self.frames[kept], times=tuple(self.times[number] for number in kept))

    def shrunk(self, longest: int) -> Clip:
        """Frames of which no side has more than so many pixels."""
        share = longest / max(self.size)
        if share >= 1:
            return self
        width, height = (max(1, round(side * share)) for side in self.size)
        small = [one.resize((width, height), Image.Resampling.LANCZOS) for one in self.pictures()]
        return replace(self, frames=Clip.of(small, self.fps).frames)

    def metadata(self) -> dict[str, Any]:
        """The fields of transformers' `VideoMetadata`, made anew: processors write to them.

        A frame's number is its time in frames of the whole video, a fraction where frames do not come at one rate, so
        that number / fps is the time at which it is seen (within a twentieth of a frame: files round their times).
        """
        numbers = [time * self.fps for time in self.times]
        return {
            "total_num_frames": max(1, round(self.duration * self.fps)),
            "fps": self.fps,
            "duration": self.duration,
            "width": self.size[0],
            "height": self.size[1],
            "video_backend": "pyav",
            "frames_indices": [round(one) if abs(one - round(one)) < 0.05 else one for one in numbers],
        }
