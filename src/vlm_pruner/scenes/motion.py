"""Scenes in motion: what a short video shows, frame by frame. Pure sampling; `render` draws every frame by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .layout import Box, Plate, Scene, Thing
from .vocabulary import CATEGORIES, COLORS, DIGITS, TINTS, WORDS

__all__ = ["FPS", "FRAMES", "SIDE", "Motion", "Sign", "Track", "sample_motion"]

FRAMES = 8
FPS = 2.0
SIDE = 112  # pixels of a frame, width and height: 8 x 8 patches of 14
CENTRES = (SIDE / 4, 3 * SIDE / 4)
CAMERAS = ("still", "pan", "noise")


@dataclass(frozen=True)
class Track:
    """One object in every frame, None where it is not to be seen."""

    part: str  # what it does: moves, changes, visits, or shows a slide
    things: tuple[Thing | None, ...]  # [FRAMES]

    @property
    def name(self) -> str:
        return next(thing.name for thing in self.things if thing)

    @property
    def shown(self) -> tuple[int, ...]:
        """The frames in which it can be seen."""
        return tuple(frame for frame, thing in enumerate(self.things) if thing)

    @property
    def runs(self) -> int:
        """How often it appears."""
        return sum(frame - 1 not in self.shown for frame in self.shown)


@dataclass(frozen=True)
class Sign:
    """Writing that shows for a moment."""

    plate: Plate
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Motion:
    """A video of FRAMES frames: a scene for each, the tracks of its objects, its signs, and where it is cut."""

    scenes: tuple[Scene, ...]  # [FRAMES]
    tracks: tuple[Track, ...]
    signs: tuple[Sign, ...]
    cuts: tuple[int, ...]  # the first frame of every shot but the first
    camera: str

    @cached_property
    def items(self) -> tuple[tuple[int, Box], ...]:
        """Frame and pixel box of all that can be evidence: in every frame the objects, then characters of signs."""
        return tuple(
            (frame, box)
            for frame, scene in enumerate(self.scenes)
            for box in [t.box for t in scene.things] + [p.slot_box(i) for p in scene.plates for i in range(len(p.text))]
        )

    def seen(self, track: Track, *frames: int) -> tuple[int, ...]:
        """Indices into `items` of an object, in some frames or in all."""
        wanted = frames or track.shown
        return tuple(
            start + [t for t in self.tracks if t.things[frame]].index(track)
            for frame, start in self._starts()
            if frame in wanted and track.things[frame]
        )

    def written(self, sign: Sign) -> tuple[int, ...]:
        """Indices into `items` of the characters of a sign, frame by frame in reading order."""
        return tuple(
            start + len(self.scenes[frame].things) + slot
            for frame, start in self._starts()
            if frame in sign.frames
            for slot in range(len(sign.plate.text))
        )

    def _starts(self) -> Iterator[tuple[int, int]]:
        start = 0
        for frame, scene in enumerate(self.scenes):
            yield frame, start
            start += len(scene.things) + sum(len(plate.text) for plate in scene.plates)


def sample_motion(rng: np.random.Generator, split: str, photos: int) -> Motion:
    """A random video: objects that move, cross, change and come and go; signs; or slides with a cut between them."""
    names = [str(name) for name in rng.permutation(CATEGORIES)]
    sort = int(rng.integers(4))
    cuts: tuple[int, ...] = ()
    signs: tuple[Sign, ...] = ()
    if sort == 0:
        tracks = _crossing(rng, names)
    elif sort == 1:
        tracks = _play(rng, names)
    elif sort == 2:
        tracks, signs = _signs(rng, names)
    else:
        tracks, cuts = _slides(rng, names)
    if not cuts and rng.random() < 0.4:
        cuts = (int(rng.integers(3, 6)),)
    camera = str(rng.choice(CAMERAS))
    return Motion(_scenes(rng, split, photos, tracks, signs, cuts, camera), tracks, signs, cuts, camera)


def _scenes(
    rng: np.random.Generator, split: str, photos: int,
    tracks: tuple[Track, ...], signs: tuple[Sign, ...], cuts: tuple[int, ...], camera: str,
) -> tuple[Scene, ...]:  # fmt: skip
    """One photograph and tint a shot; its crop drifts, or its light and clutter change from frame to frame, or not."""
    scenes: list[Scene] = []
    for frame in range(FRAMES):
        if frame == 0 or frame in cuts:
            tint = str(rng.choice(list(TINTS))) if rng.random() < 0.7 else None
            crop = (float(rng.random()), float(rng.random()), float(rng.random()), bool(rng.random() < 0.5))
            step = 0.6 * (float(rng.random()) - 0.5) / FRAMES
            shot = Scene((SIDE, SIDE), split, int(rng.integers(photos)), crop, tint, int(rng.integers(2**31)))
        elif camera == "pan":
            x = min(1.0, max(0.0, shot.crop[0] + step))
            shot = replace(shot, crop=(x, *shot.crop[1:]))
        elif camera == "noise":
            shot = replace(shot, seed=int(rng.integers(2**31)))
        things = tuple(thing for track in tracks if (thing := track.things[frame]))
        plates = tuple(sign.plate for sign in signs if frame in sign.frames)
        scenes.append(replace(shot, things=things, plates=plates))
    return tuple(scenes)


def _thing(rng: np.random.Generator, name: str, cell: int) -> Thing:
    """A still object in one quarter of the frame: 0 1 above, 2 3 below."""
    x, y = (CENTRES[c] + float(rng.uniform(-6, 6)) for c in (cell % 2, cell // 2))
    look = int(rng.integers(2)), float(rng.uniform(-14, 14))
    return Thing(name, str(rng.choice(list(COLORS))), x, y, float(rng.uniform(26, 33)), "small", *look)


def _moves(rng: np.random.Generator, name: str, start: int, end: int) -> Track:
    """From one quarter to another in a straight line, resting for a while at both ends."""
    here, there = _thing(rng, name, start), _thing(rng, name, end)
    leaves, arrives = int(rng.integers(0, 3)), int(rng.integers(5, FRAMES))
    way = np.clip((np.arange(FRAMES) - leaves) / (arrives - leaves), 0, 1)
    points = ((here.x + float(s) * (there.x - here.x), here.y + float(s) * (there.y - here.y)) for s in way)
    return Track("moves", tuple(replace(here, x=x, y=y) for x, y in points))


def _changes(rng: np.random.Generator, name: str, cell: int) -> Track:
    """One colour, and from some frame on another."""
    before = _thing(rng, name, cell)
    after = replace(before, color=str(rng.choice([c for c in COLORS if c != before.color])))
    turn = int(rng.integers(2, FRAMES - 1))
    return Track("changes", (before,) * turn + (after,) * (FRAMES - turn))


def _visits(rng: np.random.Generator, name: str, cell: int) -> Track:
    """There at the start, in the middle or at the end; or up to three times."""
    if rng.random() < 0.6:
        first, last = [(0, int(rng.integers(2, 4))), (3, 5), (int(rng.integers(5, 7)), FRAMES)][int(rng.integers(3))]
        shown = [first <= frame < last for frame in range(FRAMES)]
    else:
        times, shown = int(rng.integers(1, 4)), [True] * FRAMES
        while sum(b and not a for a, b in zip([False, *shown], shown, strict=False)) != times or all(shown):
            shown = [bool(bit) for bit in rng.integers(0, 2, FRAMES)]
    thing = _thing(rng, name, cell)
    return Track("visits", tuple(thing if there else None for there in shown))


def _crossing(rng: np.random.Generator, names: list[str]) -> tuple[Track, ...]:
    """Two objects that pass each other, side by side."""
    pairs = [((0, 1), (3, 2)), ((1, 0), (2, 3)), ((0, 2), (3, 1)), ((2, 0), (1, 3))]
    return tuple(_moves(rng, names.pop(), *way) for way in pairs[int(rng.integers(4))])


def _play(rng: np.random.Generator, names: list[str]) -> tuple[Track, ...]:
    """An object that moves, one that changes its colour, one that comes and goes."""
    ways = [
        (0, 1, 2, 3),
        (1, 0, 2, 3),
        (2, 3, 0, 1),
        (3, 2, 0, 1),
        (0, 2, 1, 3),
        (2, 0, 1, 3),
        (1, 3, 0, 2),
        (3, 1, 0, 2),
    ]
    start, end, *rest = ways[int(rng.integers(len(ways)))]
    free = [int(cell) for cell in rng.permutation(rest)]
    return (
        _moves(rng, names.pop(), start, end),
        _changes(rng, names.pop(), free[0]),
        _visits(rng, names.pop(), free[1]),
    )


def _sign(rng: np.random.Generator, kind: str, frames: tuple[int, ...], y: float) -> Sign:
    text = str(rng.choice([w for w in WORDS if len(w) < 6])) if kind == "word" else "".join(rng.choice(list(DIGITS), 3))
    height = float(rng.uniform(19, 22))
    pitch = height * 0.84
    room = SIDE - pitch * len(text) - 0.44 * height
    x = float(rng.uniform(0, max(0.0, room))) + 0.22 * height
    return Sign(Plate(kind, text, x, y, height, pitch, int(rng.integers(2))), frames)


def _signs(rng: np.random.Generator, names: list[str]) -> tuple[tuple[Track, ...], tuple[Sign, ...]]:
    """A word and two numbers, for two frames each, beside objects that stand still."""
    half = int(rng.integers(2))
    late = int(rng.integers(3))
    starts = [late + 2 * int(i) for i in rng.permutation(3)]
    signs = tuple(
        _sign(rng, kind, (start, start + 1), CENTRES[half] + float(rng.uniform(-8, 8)))
        for kind, start in zip(("word", "number", "number"), starts, strict=True)
    )
    left, right = (int(cell) + 2 * (1 - half) for cell in rng.permutation(2))
    return (_changes(rng, names.pop(), left), _visits(rng, names.pop(), right)), signs


_LENGTHS = ((2, 2, 2, 2), (2, 3, 3), (3, 2, 3), (3, 3, 2), (4, 2, 2), (2, 4, 2), (2, 2, 4))


def _slides(rng: np.random.Generator, names: list[str]) -> tuple[tuple[Track, ...], tuple[int, ...]]:
    """Three or four shots with an object each."""
    lengths = _LENGTHS[0] if rng.random() < 0.5 else _LENGTHS[int(rng.integers(1, len(_LENGTHS)))]
    tracks, start = [], 0
    for length in lengths:
        thing = _thing(rng, names.pop(), int(rng.integers(4)))
        there = range(start, start + length)
        tracks.append(Track("slide", tuple(thing if frame in there else None for frame in range(FRAMES))))
        start += length
    ends = np.cumsum(lengths)[:-1]
    return tuple(tracks), tuple(int(end) for end in ends)
