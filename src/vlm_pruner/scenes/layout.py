"""Scene layouts: what stands where. Pure sampling from a numpy generator; nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .vocabulary import CATEGORIES, COLORS, COUNTS, DIGITS, KINDS, LETTERS, PLACES, ROLES, TINTS, TINY, WORDS

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
STEP = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
UNIT = 336.0  # sizes below are pixels of a 336 px canvas and grow with the canvas


@dataclass(frozen=True)
class Thing:
    """One pictogram. `role` and `partner` read: this thing is `role` of its partner ("left" of the "cup")."""

    name: str
    color: str
    x: float
    y: float
    size: float
    tier: str  # tiny, small, medium or large
    style: int = 0
    angle: float = 0.0
    role: str | None = None
    partner: str | None = None
    count: str | None = None  # of a counted group: how many members it has

    @property
    def box(self) -> Box:
        half = self.size / 2
        return (self.x - half, self.y - half, self.x + half, self.y + half)


@dataclass(frozen=True)
class Plate:
    """A sign that carries one string; every character occupies `pitch` pixels."""

    kind: str  # number, word or code
    text: str
    x: float  # left edge of the first character
    y: float  # centre line
    height: float  # of a capital letter
    pitch: float
    font: int

    @property
    def box(self) -> Box:
        pad = self.height * 0.22
        return (
            self.x - pad,
            self.y - self.height / 2 - pad,
            self.x + self.pitch * len(self.text) + pad,
            self.y + self.height / 2 + pad,
        )

    def slot_box(self, slot: int) -> Box:
        left = self.x + self.pitch * slot
        return (left, self.y - self.height / 2, left + self.pitch, self.y + self.height / 2)


@dataclass(frozen=True)
class Scene:
    """What stands where on one picture of the offline benchmark. Places are pixels of a picture of `size`."""

    size: tuple[int, int]  # width, height
    split: str
    photo: int  # index into the photographs of the split
    crop: tuple[float, float, float, bool]  # x, y, zoom in [0, 1], mirrored
    tint: str | None
    seed: int  # of noise and clutter
    things: tuple[Thing, ...] = ()
    plates: tuple[Plate, ...] = ()
    occluded: frozenset[int] = field(default_factory=frozenset)

    def place(self, thing: Thing) -> str | None:
        """The 3x3 place of a thing, or None if it is too near to a border between two places to be named fairly."""
        cell = []
        for value, extent in ((thing.y, self.size[1]), (thing.x, self.size[0])):
            part = 3 * value / extent
            if min(abs(part - 1), abs(part - 2)) < 0.1:
                return None
            cell.append(min(2, int(part)))
        return PLACES[cell[0] * 3 + cell[1]]


class _Canvas:
    """Free space by rejection sampling."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]):
        self.rng, self.size = rng, size
        self.taken: list[Box] = []

    def put(self, width: float, height: float, gap: float, tries: int = 80) -> tuple[float, float] | None:
        """Top-left corner of a free rectangle, now taken; None if there is no room."""
        room = (self.size[0] - width - 4, self.size[1] - height - 4)
        if min(room) < 2:
            return None
        for x, y in self.rng.random((tries, 2)) * (np.array(room) - 2) + 2:
            if all(
                x + width + gap < a or c + gap < x or y + height + gap < b or d + gap < y for a, b, c, d in self.taken
            ):
                self.taken.append((x, y, x + width, y + height))
                return float(x), float(y)
        return None


def sample_scene(rng: np.random.Generator, split: str, photos: int, size: tuple[int, int] = (336, 336)) -> Scene:
    """A random scene: one or two plates, a relation group, a counted group, single things and tiny things."""
    scale = min(size) / UNIT
    canvas = _Canvas(rng, size)
    names = [str(n) for n in rng.permutation(CATEGORIES)]
    things: list[Thing] = []
    kinds = [KINDS[i] for i in rng.permutation(3)[: 1 + int(rng.random() < 0.65)]]
    plates = [p for p in (_plate(rng, canvas, kind, scale) for kind in kinds) if p]
    if rng.random() < 0.75:
        things += _relation(rng, canvas, names, scale)
    if rng.random() < 0.75:
        things += _group(rng, canvas, names.pop(), scale)
    for _ in range(2 + int(rng.random() < 0.5)):
        things += _single(rng, canvas, names.pop(), scale)
    for name in rng.permutation(TINY)[: int(rng.integers(0, 3))]:
        things += _tiny(rng, canvas, str(name), size)
    tint = str(rng.choice(list(TINTS))) if rng.random() < 0.7 else None
    crop = (float(rng.random()), float(rng.random()), float(rng.random()), bool(rng.random() < 0.5))
    occluded = frozenset(i for i, t in enumerate(things) if t.tier == "large" and rng.random() < 0.15)
    return Scene(
        size,
        split,
        int(rng.integers(photos)),
        crop,
        tint,
        int(rng.integers(2**31)),
        tuple(things),
        tuple(plates),
        occluded,
    )


def _color(rng: np.random.Generator) -> str:
    return str(rng.choice(list(COLORS)))


def _tiers(rng: np.random.Generator, scale: float) -> tuple[str, float]:
    tier = "small" if rng.random() < 0.5 else "large"
    return tier, float(rng.uniform(26, 32) if tier == "small" else rng.uniform(42, 54)) * scale


def _look(rng: np.random.Generator) -> tuple[int, float]:
    """Style and angle."""
    return int(rng.integers(2)), float(rng.uniform(-14, 14))


def _plate(rng: np.random.Generator, canvas: _Canvas, kind: str, scale: float) -> Plate | None:
    if kind == "word":
        text = str(rng.choice(WORDS))
    elif kind == "number":
        text = "".join(rng.choice(list(DIGITS), int(rng.integers(3, 5))))
    else:
        text = "".join(rng.choice(list(DIGITS + LETTERS), int(rng.integers(4, 7))))
    height = float(rng.uniform(19, 25)) * scale
    pitch = height * 0.84
    pad = height * 0.22
    corner = canvas.put(pitch * len(text) + 2 * pad, height + 2 * pad, 6 * scale)
    if corner is None:
        return None
    return Plate(kind, text, corner[0] + pad, corner[1] + pad + height / 2, height, pitch, int(rng.integers(2)))


def _relation(rng: np.random.Generator, canvas: _Canvas, names: list[str], scale: float) -> list[Thing]:
    """An anchor and two satellites on two of its four sides; nothing else stands so near."""
    size = float(rng.uniform(30, 38)) * scale
    pitch = size * float(rng.uniform(1.12, 1.3))
    roles = [ROLES[i] for i in rng.permutation(4)[:2]]
    steps = np.array([(0, 0)] + [STEP[r] for r in roles])
    low, high = steps.min(0), steps.max(0)
    width, height = (float(v) for v in (high - low) * pitch + size)
    corner = canvas.put(width, height, 14 * scale)
    if corner is None:
        return []
    centre = np.array(corner) + size / 2 - low * pitch
    anchor = names.pop()
    out = [Thing(anchor, _color(rng), float(centre[0]), float(centre[1]), size, "medium", *_look(rng))]
    for role in roles:
        x, y = centre + np.array(STEP[role]) * pitch
        out.append(
            Thing(names.pop(), _color(rng), float(x), float(y), size, "medium", *_look(rng), role=role, partner=anchor)
        )
    return out


def _group(rng: np.random.Generator, canvas: _Canvas, name: str, scale: float) -> list[Thing]:
    """One to four equal things in a row, a column or a block."""
    count = int(rng.integers(1, 5))
    shapes = {1: [(1, 1)], 2: [(2, 1), (1, 2)], 3: [(3, 1), (1, 3)], 4: [(2, 2), (4, 1)]}[count]
    columns, rows = shapes[int(rng.integers(len(shapes)))]
    size = float(rng.uniform(24, 28)) * scale
    pitch = size * float(rng.uniform(1.12, 1.3))
    corner = canvas.put((columns - 1) * pitch + size, (rows - 1) * pitch + size, 14 * scale)
    if corner is None:
        return []
    color, style = _color(rng), int(rng.integers(2))
    return [
        Thing(
            name,
            color,
            corner[0] + size / 2 + i * pitch,
            corner[1] + size / 2 + j * pitch,
            size,
            "small",
            style,
            float(rng.uniform(-14, 14)),
            count=COUNTS[count - 1],
        )
        for j in range(rows)
        for i in range(columns)
    ]


def _single(rng: np.random.Generator, canvas: _Canvas, name: str, scale: float) -> list[Thing]:
    tier, size = _tiers(rng, scale)
    corner = canvas.put(size, size, 14 * scale)
    if corner is None:
        return []
    return [Thing(name, _color(rng), corner[0] + size / 2, corner[1] + size / 2, size, tier, *_look(rng))]


def _tiny(rng: np.random.Generator, canvas: _Canvas, name: str, size: tuple[int, int]) -> list[Thing]:
    """A mark of one token's size, centred in a token or on the edge between two of the 24x24 tokens."""
    token = np.array(size) / 24
    extent = float(token.min()) * float(rng.uniform(0.72, 0.86))
    for _ in range(20):
        corner = canvas.put(extent, extent, 0.5 * extent)
        if corner is None:
            return []
        cell = np.floor((np.array(corner) + extent / 2) / token)
        x, y = (cell + 0.5 + rng.uniform(-0.06, 0.06, 2)) * token
        box = (x - extent / 2, y - extent / 2, x + extent / 2, y + extent / 2)
        others = canvas.taken[:-1]
        if all(box[2] + 4 < a or c + 4 < box[0] or box[3] + 4 < b or d + 4 < box[1] for a, b, c, d in others):
            canvas.taken[-1] = box
            return [Thing(name, _color(rng), float(x), float(y), extent, "tiny")]
        canvas.taken.pop()
    return []
