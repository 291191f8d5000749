"""From image files to pictures: one function, whoever asks for them."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from difflib import get_close_matches
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from vlm_pruner.asking.colours import as_shown, with_notes
from vlm_pruner.errors import InputError

__all__ = [
    "DEMO_IMAGE", "MAX_PIXELS", "VIDEO_FILES", "check_size", "check_there", "existing", "open_image", "opened",
    "read_image",
]  # fmt: skip

VIDEO_FILES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
"""Endings of files that are read as videos."""

DEMO_IMAGE = "demo"
"""The name of the image inside the package, where no file is called that (a folder may be)."""

MAX_PIXELS = 64_000_000
MAX_WEBP = 48_000_000  # its decoder holds four times the picture
MAX_SIDE = 65_535  # pixels, as of JPEG: resizing makes the target's width times the height of a longer one
READ_PIXELS = 26_000_000  # of a larger picture: processors take more than 30 bytes for each pixel, and send fewer on

MOST_PAGES = 1000  # that are counted: each of a TIFF file is searched for among all before it

_ALONE = threading.RLock()  # Python's warnings and the standard error stream are the whole process's
_EPS = (b"%!PS", b"\xc5\xd0\xd3\xc6")
_LIBTIFF = re.compile(r"^(\S*\.tiff?|\S*TIFF\w*|\w+(Decode|Lib|Setup|Pre|Post)\w*): ", re.IGNORECASE)


def open_image(path: str | Path) -> Image.Image:
    """The first frame of an image file as `as_shown` has it; "demo" is the image that comes with the package.

    One of more than 26 megapixels is scaled down to that size. `notes_of` says what a person should know: this, further
    frames, warnings of the decoder, or a range that was guessed.

    Raises:
        InputError: no such file, not an image, a damaged one, or one that `check_size` refuses.
    """
    file = existing(path)
    return _read(file, file.name, repr(str(path)))


def read_image(data: bytes, name: str) -> Image.Image:
    """As `open_image`, of the bytes of a file.

    Args:
        name: what messages call it.

    Raises:
        InputError: not an image, a damaged one, or one that `check_size` refuses.
    """
    return _read(io.BytesIO(data), name, repr(name))


def _read(file: Path | io.BytesIO, name: str, called: str) -> Image.Image:
    said: list[str] = []
    try:
        with _gathered(file, said), opened(file) as image:
            check_size(image)
            size, key = image.size, _key(image)
            if size[0] * size[1] > 2 * READ_PIXELS:
                _halve(image)
            image.load()
            shown = _within(as_shown(image, key))
            if shown is image:  # a plain picture in the place of the file
                shown = image.convert("RGB")
            frames = _frames(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{called} is too large: {_pixels(error)}; {_LIMIT}") from error
    except Exception as error:  # Pillow's readers raise whatever their formats do: OSError, SyntaxError, struct.error
        more = f" ({'; '.join(said)})" if said else ""
        why = str(error).replace(f"{file!r}", called)  # Pillow names the object that holds the bytes
        raise InputError(f"{called} is not a readable image: {why}{more}") from error
    shown.info["name"] = name
    many = str(frames) if frames <= MOST_PAGES else f"more than {MOST_PAGES}"
    notes = [f"it holds {many} frames: the first one is shown"] if frames > 1 else []
    if max(size) > max(shown.size):
        notes.append(f"it has {size[0] * size[1] / 1e6:.0f} megapixels: it is read at {shown.width} x {shown.height}")
    return with_notes(shown, *notes, *([f"its decoder warns: {'; '.join(said)}"] if said else []))


def opened(file: Path | io.BytesIO) -> ImageFile:
    """`Image.open` of the formats that Pillow reads itself: an EPS file is a program, which Ghostscript would run.

    Raises:
        InputError: an EPS file.
        OSError: nothing that Pillow knows, or a damaged header.
    """
    Image.init()
    try:
        return Image.open(file, formats=[name for name in Image.OPEN if name != "EPS"])
    except UnidentifiedImageError:
        with file.open("rb") if isinstance(file, Path) else nullcontext(io.BytesIO(file.getbuffer()[:4])) as start:
            if start.read(4) in _EPS:
                raise InputError("the image is an EPS file, a program that is not run: save it as PNG") from None
        raise


def check_size(image: Image.Image) -> None:
    """Refuse an image that would take gigabytes to decode or to resize.

    Raises:
        InputError: more than 64 megapixels (48 of a WebP file), or a side of more than 65,535 pixels.
    """
    webp = image.format == "WEBP"
    if image.width * image.height > (MAX_WEBP if webp else MAX_PIXELS):
        megapixels = image.width * image.height / 1e6
        read = f"at most {MAX_WEBP / 1e6:.0f} are read of WebP" if webp else _LIMIT
        raise InputError(f"the image has {image.width} x {image.height} = {megapixels:.0f} megapixels; {read}")
    if max(image.size) > MAX_SIDE:
        raise InputError(f"the image has a side of {max(image.size)} pixels; at most {MAX_SIDE} are read")


def _halve(image: ImageFile) -> None:
    """Have a file decoded at half its size where its decoder can, which otherwise takes up to 16 bytes for a pixel."""
    if image.format == "JPEG2000":
        image.reduce = 1  # type: ignore[method-assign, assignment]
    image.draft(image.mode, (image.width // 2, image.height // 2))


def _within(image: Image.Image) -> Image.Image:
    """A picture of at most `READ_PIXELS`, its notes kept."""
    share = (READ_PIXELS / (image.width * image.height)) ** 0.5
    if share >= 1:
        return image
    size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)


_LIMIT = f"at most {MAX_PIXELS / 1e6:.0f} are read"


def _pixels(error: Image.DecompressionBombError) -> str:
    """The size in Pillow's words ("Image size (400000000 pixels) exceeds ...") in ours."""
    found = re.search(r"\((\d+) pixels\)", str(error))
    return f"the image has {int(found[1]) / 1e6:.0f} megapixels" if found else "it has too many megapixels"


def check_there(path: str | Path, what: str = "image") -> None:
    """Raise where nothing lies at a path; "demo" always does. Reads nothing, so that commands can look at once.

    Raises:
        InputError: as it says; the message offers a name that is like it.
    """
    file = Path(path)
    if str(path) == DEMO_IMAGE or file.exists():
        return
    near = get_close_matches(file.name, [p.name for p in file.parent.glob("*")], n=1, cutoff=0.75)
    hint = f"; did you mean {str(file.parent / near[0])!r}?" if near else ""
    if what == "image" and file.suffix.lower() in VIDEO_FILES:
        what = "video"
    raise InputError(f"no {what} at {str(path)!r}{hint}")


def existing(path: str | Path, what: str = "image") -> Path:
    """The path, if there is a file.

    Raises:
        InputError: there is none.
    """
    file = Path(path)
    if str(path) == DEMO_IMAGE and not file.is_file():
        from vlm_pruner.scenes import DEMO

        file = DEMO
    check_there(file, what)
    if file.is_dir():
        raise InputError(f"{str(path)!r} is a folder, not an image")
    return file


def _frames(image: Image.Image) -> int:
    """Frames of an animation, pages of a scan; the first of a PSD file is all of its layers."""
    try:
        if image.format == "TIFF":  # Pillow counts wrongly where a place behind the end is looked for at once
            with suppress(EOFError):
                for page in range(1, MOST_PAGES + 1):
                    image.seek(page)
                return MOST_PAGES + 1
            return page
        return 1 if image.format == "PSD" else int(getattr(image, "n_frames", 1))
    except Exception:  # a later frame is damaged: there is one
        return 2


def _key(image: ImageFile) -> int | tuple[int, ...] | None:
    """The transparent colour of a PNG file in the depth that Pillow gives its samples; None where that is Pillow's own.

    Pillow leaves it in the file's depth, but spreads samples of 2 and 4 bits over 8, and cuts colours of 16 bits to 8.
    """
    found = image.info.get("transparency")
    if image.format != "PNG" or not image.tile or not isinstance(found, int | tuple):
        return None
    raw = image.tile[0].args
    raw = raw if isinstance(raw, str) else str((raw or ("",))[0])
    if isinstance(found, tuple):
        return tuple(value >> 8 for value in found) if "16" in raw else None
    return found * {"L;2": 85, "L;4": 17}.get(raw, 1)


@contextmanager
def _gathered(file: Path | io.BytesIO, said: list[str]) -> Iterator[None]:
    """Warnings of Pillow and of libtiff go to `said` instead of the standard error stream."""
    with file.open("rb") if isinstance(file, Path) else nullcontext(io.BytesIO(file.getbuffer()[:2])) as start:
        tiff = start.read(2) in (b"II", b"MM")
    with _ALONE, warnings.catch_warnings(record=True) as caught, _stderr_lines(said) if tiff else nullcontext():
        warnings.simplefilter("always")
        try:
            yield
        finally:
            kept = (w for w in caught if not issubclass(w.category, Image.DecompressionBombWarning))
            said += dict.fromkeys(" ".join(str(w.message).split()) for w in kept)


@contextmanager
def _stderr_lines(said: list[str]) -> Iterator[None]:
    """Lines that libtiff, a C library, writes to the standard error stream; those of others are handed on."""
    sys.stderr.flush()
    try:
        own = os.dup(2)
    except OSError:  # a program without one
        yield
        return
    with tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            os.close(own)
            lines.seek(0)
            for line in lines.read().decode(errors="replace").splitlines():
                if _LIBTIFF.match(line):
                    said.append(_LIBTIFF.sub("", line).strip())
                else:
                    os.write(2, f"{line}\n".encode())
