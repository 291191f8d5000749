"""From video files to frames, by PyAV: one pass over the packets says what there is, a second one decodes.

Times decide, not numbers: files without a count of frames, or with frames at uneven distances, are read as they play.
Memory holds the frames that were asked for, and a few that the decoder works on, however long the video is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_pruner.errors import BackendUnavailableError, InputError, first_line
from vlm_pruner.video.clip import Clip
from vlm_pruner.video.sampling import Sampling, within

__all__ = ["open_video"]

MAX_SECONDS = 4 * 3600
MAX_FRAME = 64_000_000  # pixels of one frame
CONTAINERS = {"format_whitelist": "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,ivf,m4v", "protocol_whitelist": "file"}
"""What may be in a video file, whatever its ending: FFmpeg would read a playlist, too, and what that names."""

THREADS = 4  # of the decoder: each holds frames of its own


def open_video(path: str | Path, sampling: Sampling | None = None) -> Clip:
    """The frames of a video file that `sampling` takes, upright and with square pixels, as a player shows them.

    What a person should know of them (turned, made smaller, damaged, cut short) are the `notes` of the clip.

    Raises:
        InputError: no video, a damaged or empty one, sound alone, one that is longer than 4 hours, or frames of more
            than 64 megapixels.
        BackendUnavailableError: PyAV is not installed.
    """
    name = repr(str(path))
    av = _pyav(name)
    with _told(name):
        if not Path(path).stat().st_size:
            raise InputError(f"{name} is empty")
        with _opened(av, path) as container:
            shape = _Shape.of(container, name)
        times = (sampling or Sampling()).times(shape.duration, shape.total)
        with _opened(av, path) as container:
            taken = _Taken(shape, len(times))
            for number, frame in _at(container, shape, times):
                taken.put(number, frame)
    if taken.count < len(times):
        raise InputError(
            f"{name} is damaged: of {float(shape.duration):.1f} seconds its frames can be read up to "
            f"{float(taken.last):.1f}"
        )
    notes = (*shape.notes, *taken.notes())
    seconds = tuple(float(time) for time in taken.times)
    return Clip(taken.frames(), seconds, float(shape.fps), float(shape.duration), Path(path).name, notes)


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise BackendUnavailableError(f"video {name} needs av: pip install 'vlm-pruner[video]'") from error
    return av


def _opened(av: Any, path: str | Path) -> Any:
    """The container of a file."""
    return av.open(f"file:{path}", options=CONTAINERS)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever a decoder stumbles over within the block, in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # FFmpeg's errors are of many classes
        why = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{name} is not a readable video: {why}") from error


@dataclass(frozen=True)
class _Shape:
    """What the packets of a video say."""

    first: Fraction  # time of the first frame
    duration: Fraction
    total: int  # frames
    fps: Fraction
    aspect: Fraction  # width of a pixel by its height
    tick: Fraction  # seconds by which the file counts
    notes: tuple[str, ...]

    @classmethod
    def of(cls, container: Any, name: str) -> _Shape:
        if not container.streams.video:
            what = "holds sound, but no pictures" if container.streams.audio else "holds no pictures"
            raise InputError(f"{name} {what}")
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_FRAME:
            megapixels = stream.width * stream.height / 1e6
            raise InputError(
                f"{name} has frames of {megapixels:.0f} megapixels; at most {MAX_FRAME / 1e6:.0f} are read"
            )
        base, places = stream.time_base, []
        length = 0
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                places.append(packet.pts)
                length = packet.duration or length
        if not places:
            raise InputError(f"{name} holds no frames")
        places.sort()
        span = places[-1] - places[0]
        rate = stream.average_rate or stream.guessed_rate
        if not length:
            length = span / (len(places) - 1) if span else (1 / (rate * base) if rate else 1 / base)
        duration = (span + Fraction(length)) * base
        if duration > MAX_SECONDS:
            raise InputError(
                f"{name} is {float(duration) / 3600:.1f} hours long; at most {MAX_SECONDS // 3600} are read: cut it"
            )
        fps = Fraction(rate) if rate else len(places) / duration
        aspect = stream.sample_aspect_ratio or Fraction(1)
        notes = _missing(container, duration, len(places))
        aspect = aspect if aspect > 0 else Fraction(1)
        return cls(places[0] * base, duration, len(places), fps, aspect, base, notes)


def _missing(container: Any, duration: Fraction, total: int) -> tuple[str, ...]:
    """What to say of a video of one frame, or where the file promises more than it holds."""
    notes = ["it has one frame only"] if total == 1 else []
    promised = (container.duration or 0) / 1_000_000
    sound = bool(container.streams.audio)  # which may go on behind the pictures
    if not sound and promised > 1.05 * float(duration) + 1:
        notes.append(f"its end is missing: {float(duration):.1f} of {promised:.1f} seconds are there")
    return tuple(notes)


def _at(container: Any, shape: _Shape, times: list[Fraction]) -> Iterator[tuple[int, Any]]:
    """(number, frame) that is seen at each of the times: the last one that begins before or then."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = THREADS
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME)}  # also of frames that grow on the way
    number, before = 0, None
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        begins = frame.pts * shape.tick - shape.first - shape.tick / 2  # files round times, Matroska to milliseconds
        while number < len(times) and before is not None and times[number] < begins:
            yield number, before
            number += 1
        before = frame
        if number == len(times):
            return
    if before is None:
        return
    over = before.pts * shape.tick - shape.first + 2 / shape.fps
    while number < len(times) and (times[number] <= over or shape.total == 1):
        yield number, before
        number += 1


@dataclass
class _Taken:
    """The frames that were taken so far, in the room of all of them."""

    shape: _Shape
    most: int
    room: torch.Tensor | None = None  # [t, 3, h, w]
    count: int = 0
    times: list[Fraction] = field(default_factory=list)
    damaged: int = 0
    turned: int = 0
    stored: tuple[int, int] = (0, 0)  # (width, height) in the file

    @property
    def last(self) -> Fraction:
        """Time of the last frame."""
        return self.times[-1] if self.times else Fraction(0)

    def put(self, number: int, frame: Any) -> None:
        """Note the frame that is seen at time `number`."""
        shown = _upright(frame, within((frame.width * self.shape.aspect, frame.height), self.most))
        if self.room is None:
            self.stored, self.turned = (frame.width, frame.height), int(frame.rotation) % 360
            self.room = torch.empty(self.most, 3, *shown.shape[:2], dtype=torch.uint8)
        if tuple(self.room.shape[2:]) != shown.shape[:2]:
            height, width = shown.shape[:2]
            raise InputError(f"its frames change their size, to {width} x {height}: cut it there")
        self.room[number] = torch.from_numpy(np.ascontiguousarray(shown)).permute(2, 0, 1)
        self.count += 1
        self.damaged += bool(frame.is_corrupt)
        self.times.append(frame.pts * self.shape.tick - self.shape.first)

    def frames(self) -> torch.Tensor:
        """[t, 3, h, w] uint8."""
        assert self.room is not None
        return self.room

    def notes(self) -> list[str]:
        """What is different from the file."""
        assert self.room is not None
        said = [f"{self.damaged} of the {self.count} frames that are read are damaged"] if self.damaged else []
        if self.turned:
            said.append("it is stored on its side or upside down: shown upright")
        height, width = self.room.shape[2:]
        if height * width * 1.02 < self.stored[0] * self.stored[1]:
            said.append(f"its frames of {self.stored[0]} x {self.stored[1]} pixels are read at {width} x {height}")
        return said


def _upright(frame: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """[h, w, 3] as a player shows it: by the file's rotation, what is transparent on white."""
    whole = size == (frame.width, frame.height)
    sized = frame if whole else frame.reformat(width=size[0], height=size[1], interpolation="AREA")
    if any(part.is_alpha for part in frame.format.components):
        colours = sized.to_ndarray(format="rgba").astype(np.uint16)
        alpha = colours[..., 3:]
        shown = ((colours[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        shown = sized.to_ndarray(format="rgb24")
    quarter: NDArray[np.uint8] = np.rot90(shown, int(frame.rotation) // 90)
    return quarter
