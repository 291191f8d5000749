"""Words on pictures: in a face that has their signs, in lines that fit, and never as boxes."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from itertools import groupby

from PIL import ImageDraw, ImageFont, features

from vlm_pruner.viz.palette import RGB, font, plain

__all__ = ["length", "shorten", "wrap", "write"]

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FALLBACKS = (  # what systems carry, first those with many scripts; Pillow looks in the system's own folders
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSans-Regular.ttf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "AppleGothic.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "segoeui.ttf",
    "seguisym.ttf",
)
_NOWHERE = "\U0010fffe"  # stands for no sign, so that every face shows its box
_GAP = "…"  # where signs were left out


def shorten(text: str, signs: int) -> str:
    """`text` in one line of at most `signs` signs, cut at its end."""
    text = " ".join(text.split())
    return text if len(text) <= signs else text[: signs - 1].rstrip() + "…"


def wrap(text: str, size: int, width: int, lines: int = 1000) -> list[str]:
    """`text` broken into at most `lines` lines that fit `width` pixels at a font of `size`; a cut is marked.

    Signs that no face here has are left out.
    """
    done = [""]
    for word in _readable(text).split():
        longer = f"{done[-1]} {word}".strip()
        if length(longer, size) <= width:
            done[-1] = longer
            continue
        pieces = list(_pieces(word, size, width))
        done += pieces if done[-1] else []
        done = done if done[-1] != "" else pieces
    if len(done) > lines:
        last = done[lines - 1]
        while last and length(f"{last} …", size) > width:
            last = last[:-1]
        done = [*done[: lines - 1], f"{last.rstrip()} …"]
    return done


def _pieces(word: str, size: int, width: int) -> Iterator[str]:
    """A word, in parts where it is longer than a line."""
    while word:
        low, high = 1, 2  # signs that fit, or a single one, and signs that may not: at most two lines are measured
        while low < len(word) and length(word[:high], size) <= width:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if length(word[:middle], size) <= width else (low, middle)
        yield word[:low]
        word = word[low:]


def length(text: str, size: int) -> float:
    """Width of a line in pixels."""
    return sum(_face(face, size).getlength(part) for face, part in _runs(text))


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    fill: RGB,
    *,
    bold: bool = False,
    align: str = "l",
) -> None:
    """One line whose top is at `at`: its left end, its middle (`align` "m") or its right end ("r")."""
    x, y = at
    x -= {"l": 0.0, "m": 0.5, "r": 1.0}[align] * length(text, size)
    ascent = _rise(font(size), size)
    for face, part in _runs(text):
        own = _face(face, size)
        place = (x, y + ascent - _rise(own, size))  # all on one line
        draw.text(place, part, font=own, fill=fill, stroke_width=0.4 if bold else 0, direction=_direction(own))
        x += own.getlength(part)


def _direction(face: Face) -> str | None:
    """Lines are ours and run from left to right, whatever the question in them begins with."""
    orders = isinstance(face, ImageFont.FreeTypeFont) and face.layout_engine == ImageFont.Layout.RAQM
    return "ltr" if orders else None


def _rise(face: Face, size: int) -> float:
    return face.getmetrics()[0] if isinstance(face, ImageFont.FreeTypeFont) else size


def _readable(text: str) -> str:
    """`text` without signs that cannot be shown; a gap stands for each row of them."""
    plain_text = plain(unicodedata.normalize("NFC", text))
    signs: list[str] = []  # each with the marks on it
    for sign in plain_text:
        if signs and unicodedata.category(sign).startswith("M") and not _invisible(sign):
            signs[-1] += sign
        elif sign.isspace() or not _invisible(sign):
            signs.append(sign)
    bare = [s if _shown(s) else unicodedata.normalize("NFD", s)[0] for s in signs]  # an e for an é that is missing
    return "".join("".join(row) if there else _GAP for there, row in groupby(bare, key=_shown))


def _shown(sign: str) -> bool:
    return sign.isspace() or any(all(_has(face, part) for part in sign) for face in range(1 + len(_FALLBACKS)))


def _invisible(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cf", "Cs") or "\ufe00" <= sign <= "\ufe0f"


def _runs(text: str) -> list[tuple[int, str]]:
    """(face, part) from left to right: one face for all where one has all signs, so that it can order and join them."""
    signs = set(text) - {" "}
    for face in range(1 + len(_FALLBACKS)):
        if all(_has(face, sign) for sign in signs):
            return [(face, text)] if text else []
    return [(face, "".join(part)) for face, part in groupby(text, key=lambda sign: _first(sign) or 0)]


@functools.lru_cache(4096)
def _first(sign: str) -> int | None:
    """The first face that has a sign."""
    return next((face for face in range(1 + len(_FALLBACKS)) if _has(face, sign)), None)


@functools.lru_cache(16384)
def _has(face: int, sign: str) -> bool:
    if sign == " ":
        return True
    if unicodedata.bidirectional(sign) in ("R", "AL") and not features.check("raqm"):
        return False  # letters would stand apart and in the wrong order
    try:
        own = _face(face, 24)
        base = "a" if unicodedata.category(sign).startswith("M") else ""  # a mark stands on a letter
        return _mask(own, base + sign) not in (_mask(own, base + _NOWHERE), ((0, 0), b""))
    except (OSError, UnicodeEncodeError):  # no such face; one of Latin letters alone
        return False


def _mask(face: Face, sign: str) -> tuple[tuple[int, int], bytes]:
    mask = face.getmask(sign)
    return mask.size, bytes(mask)


@functools.lru_cache(256)
def _face(number: int, size: int) -> Face:
    """Pillow's own face, then the fallbacks.

    Raises:
        OSError: it is not on this system.
    """
    return font(size) if number == 0 else _found(_FALLBACKS[number - 1], size)


def _found(name: str, size: int) -> Face:
    if name in _missing:
        raise OSError(name)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        _missing.add(name)  # its folders need not be searched again
        raise


_missing: set[str] = set()
