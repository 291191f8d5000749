"""Video files as people have them, encoded here: shapes that move, and files that are broken in all the usual ways."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["RATE", "moving", "turn", "write_broken", "write_folder", "write_gif", "write_sound", "write_video"]

RATE = 30  # frames a second
CODECS = {".webm": "libvpx", ".avi": "mpeg4"}


def moving(number: int, of: int, size: tuple[int, int] = (320, 240)) -> NDArray[np.uint8]:
    """[h, w, 3] a red square on its way to the right and a green one on its way to the left, on grey."""
    width, height = size
    side, way = max(2, height // 5), number / max(1, of - 1)
    picture = np.full((height, width, 3), 60, np.uint8)
    left = round(way * (width - side))
    picture[height // 5 : height // 5 + side, left : left + side] = (220, 30, 30)
    picture[3 * height // 5 : 3 * height // 5 + side, width - side - left : width - left] = (30, 200, 30)
    return picture


def write_video(
    path: Path,
    frames: int = 150,
    size: tuple[int, int] = (320, 240),
    *,
    rate: int = RATE,
    at: Iterable[float] | None = None,
    aspect: Fraction | None = None,
    codec: str = "",
    picture: Any = moving,
) -> Path:
    """A file of `frames` frames: 5 seconds of 320 x 240 by default.

    Args:
        at: seconds at which the frames begin, for files without one rate.
        aspect: width of a pixel by its height.
        picture: (number, of, size) -> [h, w, 3].
    """
    codec = codec or CODECS.get(path.suffix, "libx264")
    options = {"preset": "ultrafast"} if codec == "libx264" else {"deadline": "realtime", "cpu-used": "8"}
    starts = None if at is None else list(at)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, options=options if codec != "mpeg4" else {})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if starts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, frames, size), format="rgb24")
            if starts is not None:
                frame.pts, frame.time_base = round(1000 * starts[number]), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def turn(path: Path) -> Path:
    """The same file with the mark of a telephone that was held upright: players turn it by a quarter, clockwise."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    for place, value in enumerate((0, 1 << 16, 0, -(1 << 16), 0, 0)):
        data[matrix + 4 * place : matrix + 4 * place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


def write_gif(path: Path, frames: int = 10, milliseconds: int = 100) -> Path:
    """An animation of 64 x 48 pixels."""
    pictures = [Image.fromarray(moving(number, frames, (64, 48))) for number in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds)
    return path


def write_folder(path: Path, frames: int = 12, size: tuple[int, int] = (64, 48)) -> Path:
    """A folder of frames, numbered without leading zeros."""
    path.mkdir()
    for number in range(frames):
        Image.fromarray(moving(number, frames, size)).save(path / f"frame{number + 1}.png")
    return path


def write_sound(path: Path) -> Path:
    """A file with sound alone."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        for _ in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 16000
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_broken(folder: Path) -> dict[str, str]:
    """Files that cannot be read: name -> what is said of it."""
    whole = write_video(folder / "whole.mp4", 30).read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video", encoding="utf-8")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # the table of its frames was at the end
    (folder / "noise.webm").write_bytes(np.random.default_rng(0).bytes(20_000))
    write_sound(folder / "sound.mp4")
    write_video(folder / "long.mkv", 3, at=[0, 7200, 18000])
    (folder / "nothing").mkdir()
    return {
        "empty.mp4": "is empty",
        "text.mp4": "is not a readable video: Invalid data found when processing input",
        "cut.mp4": "is not a readable video: Invalid data found when processing input",
        "noise.webm": "is not a readable video: Invalid data found when processing input",
        "sound.mp4": "holds sound, but no pictures",
        "long.mkv": "is 5.0 hours long; at most 4 are read: cut it",
        "nothing": "no pictures in the folder",
        "missing.mp4": "no video at",
    }
