"""From what lies on a disk to what is asked about: a picture, or the frames of a video."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile

from vlm_pruner.asking.colours import as_shown, notes_of
from vlm_pruner.asking.opening import DEMO_IMAGE, VIDEO_FILES, check_size, existing, open_image, opened
from vlm_pruner.errors import InputError
from vlm_pruner.video import Clip, Sampling, open_video
from vlm_pruner.video.sampling import MAX_FRAMES, within

__all__ = ["Shown", "is_video", "notes_about", "open_shown", "pictures_in"]

Shown = Image.Image | Clip
"""What a question is about."""

FOLDER_FPS = 2.0  # of frames in a folder, where nobody says at which rate they were taken
GIF_FRAMES, GIF_PIXELS = 20_000, 2_000_000_000  # of all frames together
QUICKEST = 10  # milliseconds of a GIF's frame; shorter ones are shown for 100, as in browsers


def notes_about(shown: Shown) -> tuple[str, ...]:
    """What was done to a picture or a video that a person may not expect, a sentence each."""
    return shown.notes if isinstance(shown, Clip) else notes_of(shown)


def is_video(path: str | Path) -> bool:
    """Is a file or a folder read as a video: by its ending, a GIF by its frames, a folder by being one?"""
    file = Path(path)
    if str(path) == DEMO_IMAGE and not file.is_file():
        return False
    if file.is_dir() or file.suffix.lower() in VIDEO_FILES:
        return True
    return file.suffix.lower() == ".gif" and file.is_file() and _moves(file)


def open_shown(path: str | Path, sampling: Sampling | None = None) -> Shown:
    """A picture as `open_image` has it, or the frames of a video that `sampling` takes.

    Videos are files that end like videos, GIFs of several frames, and folders of frames, which are shown in the order
    of their names. Frames of a folder are all taken unless `sampling` says how many; its `fps` is the rate at which
    they were taken, 2 a second by default.

    Raises:
        InputError: as of `open_image` and `open_video`; frames of several sizes; a sampling of a picture.
        BackendUnavailableError: a video file without PyAV.
    """
    sampling = sampling or Sampling()
    if not is_video(path):
        if sampling != Sampling():
            raise InputError(f"{str(path)!r} is no video: leave out --fps and --frames")
        return open_image(path)
    if Path(path).is_dir():
        return _folder(Path(path), sampling)
    file = existing(path, "video")
    return _animation(file, sampling) if file.suffix.lower() == ".gif" else open_video(file, sampling)


def pictures_in(folder: str | Path) -> list[Path]:
    """The files of a folder that end like pictures, in the order of their names, numbers by value.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    Image.init()
    try:
        found = [file for file in Path(folder).iterdir() if file.suffix.lower() in Image.EXTENSION and file.is_file()]
    except OSError as error:
        raise InputError(f"cannot read the folder {str(folder)!r}: {error.strerror or error}") from error
    if not found:
        raise InputError(f"no pictures in the folder {str(folder)!r}")
    return sorted(found, key=lambda file: [(int(n or 0), text) for n, text in re.findall(r"(\d*)(\D*)", file.name)])


def _folder(folder: Path, sampling: Sampling) -> Clip:
    files, rate = pictures_in(folder), sampling.fps or FOLDER_FPS
    if sampling.frames is None and len(files) > MAX_FRAMES:
        raise InputError(f"{str(folder)!r} holds {len(files)} frames; at most {MAX_FRAMES} are read: say --frames")
    count = min(sampling.frames or len(files), len(files))
    taken = [number * len(files) // count for number in range(count)]
    notes = [] if sampling.fps else [f"frames of a folder have no times: taken as {rate:g} a second"]
    pictures = [_small(open_image(files[number]), count) for number in taken]
    clip = Clip.of(pictures, rate, name=folder.name, notes=notes)
    return Clip(
        clip.frames, tuple(number / rate for number in taken), rate, len(files) / rate, folder.name, tuple(notes)
    )


def _moves(file: Path) -> bool:
    try:
        with opened(file) as image:
            return int(getattr(image, "n_frames", 1)) > 1
    except Exception:  # `open_image` says what is wrong with it
        return False


def _check_work(image: ImageFile) -> None:
    """Raise where a GIF of few bytes asks for minutes: each of its frames is drawn on the whole picture.

    Raises:
        InputError: more than 20,000 frames, or more than 2 gigapixels together; also as of `check_size`.
    """
    check_size(image)
    frames = int(getattr(image, "n_frames", 1))
    if frames > GIF_FRAMES:
        raise InputError(f"it has {frames:,} frames; at most {GIF_FRAMES:,} are read of a GIF")
    if frames * image.width * image.height > GIF_PIXELS:
        raise InputError(
            f"it has {frames:,} frames of {image.width} x {image.height} pixels; at most {GIF_PIXELS / 1e6:,.0f} "
            "megapixels are read of a GIF: make it smaller or shorter"
        )


def _animation(file: Path, sampling: Sampling) -> Clip:
    """The frames of a GIF, by Pillow, which composes them as browsers do."""
    try:
        with opened(file) as image:
            _check_work(image)
            begins, end = [], Fraction(0)
            for number in range(int(getattr(image, "n_frames", 1))):
                image.seek(number)
                shown = int(image.info.get("duration", 0))
                begins.append(end)
                end += Fraction(shown if shown > QUICKEST else 100, 1000)
            times = sampling.times(end, len(begins))
            pictures = []
            for time in times:
                image.seek(sum(begin <= time for begin in begins) - 1)
                pictures.append(_small(as_shown(image.convert("RGBA")), len(times)))
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise whatever their formats do
        raise InputError(f"{str(file)!r} is not a readable video: {error}") from error
    fps = float(len(begins) / end)
    frames = Clip.of(pictures, fps).frames
    whole = file.read_bytes().rstrip(b"\0").endswith(b";")
    notes = () if whole else (f"it breaks off after {len(begins)} frames",)
    return Clip(frames, tuple(float(time) for time in times), fps, float(end), file.name, notes)


def _small(picture: Image.Image, frames: int) -> Image.Image:
    """A frame at the size at which so many of them are read."""
    size = within(picture.size, frames)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)
