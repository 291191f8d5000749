"""Questions about scenes in motion, one function per type. Nearly all of them cannot be answered from one frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from .motion import FRAMES, Motion, Sign, Track
from .questions import Draft
from .vocabulary import CATEGORIES, COLORS, COUNTS, DIGITS, TINTS, WORDS

__all__ = ["MOMENTS", "MOTION", "MOTION_TYPES"]

T = TypeVar("T")
MOMENTS = ("start", "middle", "end")
LAST = FRAMES - 1
CORNERS = (("top-left", "top-right"), ("bottom-left", "bottom-right"))


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _tracks(motion: Motion, part: str) -> list[Track]:
    return [track for track in motion.tracks if track.part == part]


def _moment(rng: np.random.Generator) -> tuple[str, int]:
    """The start or the end, and its frame."""
    return _pick(rng, [("start", 0), ("end", LAST)])


def _corner(track: Track, frame: int, motion: Motion) -> str:
    thing = track.things[frame]
    assert thing
    width, height = motion.scenes[frame].size
    return CORNERS[thing.y > height / 2][thing.x > width / 2]


def color(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """The colour, before or after it changes."""
    changing = _tracks(motion, "changes")
    if not changing:
        return None
    track, (moment, frame) = _pick(rng, changing), _moment(rng)
    thing = track.things[frame]
    assert thing
    same = [f for f in track.shown if (other := track.things[f]) and other.color == thing.color]
    text = f"What color is the {track.name} at the {moment}?"
    return Draft("color", text, thing.color, 1 / len(COLORS), motion.seen(track, *same))


def place(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """Where something that moves was, or is in the end."""
    moving = _tracks(motion, "moves")
    if not moving:
        return None
    track, (moment, frame) = _pick(rng, moving), _moment(rng)
    text = f"Where is the {track.name} at the {moment}?"
    return Draft("place", text, _corner(track, frame, motion), 1 / 4, motion.seen(track, frame))


def direction(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """Which way something moves."""
    moving = _tracks(motion, "moves")
    if not moving:
        return None
    track = _pick(rng, moving)
    first, last = track.things[0], track.things[LAST]
    assert first
    assert last
    x, y = last.x - first.x, last.y - first.y
    answer = ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")
    text = f"Where does the {track.name} move?"
    return Draft("direction", text, answer, 1 / 4, motion.seen(track, 0, LAST))


def first(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """What the first or the last shot shows."""
    slides = _tracks(motion, "slide")
    if not slides:
        return None
    word, track = _pick(rng, [("first", slides[0]), ("last", slides[-1])])
    return Draft("first", f"What is the {word} object?", track.name, 1 / len(CATEGORIES), motion.seen(track))


def after(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """What comes right after something, or right before it."""
    slides = _tracks(motion, "slide")
    if not slides:
        return None
    number = int(rng.integers(len(slides) - 1))
    word, known, asked = _pick(rng, [("after", number, number + 1), ("before", number + 1, number)])
    text = f"What is {word} the {slides[known].name}?"
    items = motion.seen(slides[asked]) + motion.seen(slides[known])
    return Draft("after", text, slides[asked].name, 1 / len(CATEGORIES), items)


def order(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """Which of two things comes first, or last."""
    slides = _tracks(motion, "slide")
    if not slides:
        return None
    low, high = sorted(int(i) for i in rng.permutation(len(slides))[:2])
    word, winner, loser = _pick(rng, [("first", low, high), ("last", high, low)])
    one, two = (slides[i].name for i in rng.permutation([winner, loser]))
    items = motion.seen(slides[winner]) + motion.seen(slides[loser])
    return Draft("order", f"Which is {word}, the {one} or the {two}?", slides[winner].name, 1 / 2, items)


def presence(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """Whether something that comes or goes is there at the start, or at the end."""
    visits = _tracks(motion, "visits") or _tracks(motion, "slide")
    moment, frame = _moment(rng)
    wanted = bool(rng.random() < 0.5)
    options = [track for track in visits if (frame in track.shown) == wanted]
    if not options:
        return None
    track = _pick(rng, options)
    text = f"Is there a {track.name} at the {moment}?"
    return Draft("presence", text, "yes" if wanted else "no", 1 / 2, motion.seen(track))


def counting(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """How often something appears."""
    visits = [track for track in _tracks(motion, "visits") if track.runs <= 3]
    if not visits:
        return None
    track = _pick(rng, visits)
    text = f"How many times does the {track.name} appear?"
    return Draft("counting", text, COUNTS[track.runs - 1], 1 / 3, motion.seen(track))


def when(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """In which part of the video something, or a sign, can be seen."""
    options: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    for track in _tracks(motion, "visits"):
        if track.runs == 1:
            options.append((track.name, track.shown, motion.seen(track)))
    for sign in motion.signs:
        if sign.plate.kind == "word":
            options.append(("word", sign.frames, motion.written(sign)))
    found = [(name, part, items) for name, shown, items in options if (part := _part(shown))]
    if not found:
        return None
    name, part, items = _pick(rng, found)
    return Draft("when", f"When is the {name} there?", part, 1 / len(MOMENTS), items)


def _part(shown: tuple[int, ...]) -> str | None:
    """The part of the video to which frames that follow each other belong, None where it is not plain."""
    if shown[-1] <= 2:
        return "start"
    if shown[0] >= FRAMES - 3:
        return "end"
    return "middle" if shown[0] >= 2 and shown[-1] <= FRAMES - 3 else None


def word(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """A word that two frames show."""
    for sign in _of(motion, "word"):
        return Draft("word", "What is the word?", sign.plate.text, 1 / len(WORDS), motion.written(sign))
    return None


def number(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """The first or the last of two numbers, two frames each."""
    signs = _of(motion, "number")
    if len(signs) < 2:
        return None
    which, sign = _pick(rng, [("first", signs[0]), ("last", signs[1])])
    chance = float(len(DIGITS)) ** -len(sign.plate.text)
    return Draft("number", f"What is the {which} number?", sign.plate.text, chance, motion.written(sign))


def _of(motion: Motion, kind: str) -> list[Sign]:
    """Signs of a kind in the order in which they are shown."""
    return sorted((sign for sign in motion.signs if sign.plate.kind == kind), key=lambda sign: sign.frames)


def background(rng: np.random.Generator, motion: Motion) -> Draft | None:
    """The tint before the first cut, or after the last."""
    first, last = motion.scenes[0].tint, motion.scenes[LAST].tint
    if not motion.cuts or first is None or last is None or first == last:
        return None
    moment, frame = _moment(rng)
    tint = motion.scenes[frame].tint
    assert tint
    return Draft("background", f"What color is the background at the {moment}?", tint, 1 / len(TINTS), ())


MOTION: dict[str, Callable[[np.random.Generator, Motion], Draft | None]] = {
    "color": color,
    "place": place,
    "direction": direction,
    "first": first,
    "after": after,
    "order": order,
    "presence": presence,
    "counting": counting,
    "when": when,
    "word": word,
    "number": number,
    "background": background,
}
"""Question type -> a draft about a video, or None where the video shows no such thing."""

MOTION_TYPES = tuple(MOTION)
