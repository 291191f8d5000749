"""Questions about scenes, one function per type; each draft names the items of the scene that hold its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .layout import Box, Scene
from .vocabulary import ALPHABET, CATEGORIES, COLORS, COUNTS, DIGITS, LETTERS, PLACES, SLOTS, TINTS, WORDS

T = TypeVar("T")

TYPES = (
    "presence",
    "category",
    "color",
    "counting",
    "relation",
    "position",
    "comparison",
    "number",
    "word",
    "code",
    "character",
    "small",
    "background",
    "two_images",
)
"""The types of questions, in the order of the tables."""


@dataclass(frozen=True)
class Draft:
    """A question without its image. `items` index `item_boxes(scene)`, in reading order, the answer's own first."""

    type: str
    text: str
    answer: str
    chance: float
    items: tuple[int, ...]


def item_boxes(scene: Scene) -> list[Box]:
    """Pixel boxes of everything that can be evidence: the things, then every character of every plate."""
    return [t.box for t in scene.things] + [p.slot_box(i) for p in scene.plates for i in range(len(p.text))]


def _items(scene: Scene, name: str) -> tuple[int, ...]:
    return tuple(i for i, t in enumerate(scene.things) if t.name == name)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _names(scene: Scene, tiny: bool = False) -> list[str]:
    return list(dict.fromkeys(t.name for t in scene.things if (t.tier == "tiny") == tiny))


def presence(rng: np.random.Generator, scene: Scene) -> Draft | None:
    here = _names(scene)
    yes = bool(here) and rng.random() < 0.5
    name = str(_pick(rng, here if yes else [c for c in CATEGORIES if c not in here]))
    return Draft("presence", f"Is there a {name}?", "yes" if yes else "no", 1 / 2, _items(scene, name))


def category(rng: np.random.Generator, scene: Scene) -> Draft | None:
    colors = Counter(color for _, color in {(t.name, t.color) for t in scene.things})
    options = [t for t in scene.things if colors[t.color] == 1 and t.tier != "tiny"]
    if not options:
        return None
    thing = _pick(rng, options)
    return Draft(
        "category", f"What is the {thing.color} object?", thing.name, 1 / len(CATEGORIES), _items(scene, thing.name)
    )


def _color_of(rng: np.random.Generator, scene: Scene, tiny: bool) -> Draft | None:
    names = _names(scene, tiny)
    if not names:
        return None
    items = _items(scene, str(_pick(rng, names)))
    thing = scene.things[items[0]]
    return Draft("small" if tiny else "color", f"What color is the {thing.name}?", thing.color, 1 / len(COLORS), items)


def color(rng: np.random.Generator, scene: Scene) -> Draft | None:
    return _color_of(rng, scene, tiny=False)


def small(rng: np.random.Generator, scene: Scene) -> Draft | None:
    return _color_of(rng, scene, tiny=True)


def counting(rng: np.random.Generator, scene: Scene) -> Draft | None:
    for thing in scene.things:
        if thing.count:
            text = f"How many {thing.name} symbols are there?"
            return Draft("counting", text, thing.count, 1 / len(COUNTS), _items(scene, thing.name))
    return None


def relation(rng: np.random.Generator, scene: Scene) -> Draft | None:
    options = [(thing, thing.partner) for thing in scene.things if thing.partner]
    if not options:
        return None
    thing, partner = _pick(rng, options)
    side = f"{thing.role} of" if thing.role in ("left", "right") else thing.role
    items = _items(scene, thing.name) + _items(scene, partner)
    return Draft("relation", f"What is {side} the {partner}?", thing.name, 1 / len(CATEGORIES), items)


def position(rng: np.random.Generator, scene: Scene) -> Draft | None:
    alone = [t for t in scene.things if t.tier != "tiny" and (not t.count or t.count == "one")]
    options = [(thing, place) for thing in alone if (place := scene.place(thing))]
    if not options:
        return None
    thing, place = _pick(rng, options)
    return Draft("position", f"Where is the {thing.name}?", place, 1 / len(PLACES), _items(scene, thing.name))


def comparison(rng: np.random.Generator, scene: Scene) -> Draft | None:
    large = [t for t in scene.things if t.tier == "large"]
    low = [t for t in scene.things if t.tier == "small"]
    if not large or not low:
        return None
    pair = {"larger": _pick(rng, large), "smaller": _pick(rng, low)}
    word = str(_pick(rng, list(pair)))
    winner, loser = pair[word], pair["smaller" if word == "larger" else "larger"]
    first, second = (winner, loser) if rng.random() < 0.5 else (loser, winner)
    text = f"Which is {word}, the {first.name} or the {second.name}?"
    return Draft("comparison", text, winner.name, 1 / 2, _items(scene, winner.name) + _items(scene, loser.name))


def _plate(scene: Scene, index: int) -> tuple[int, ...]:
    start = len(scene.things) + sum(len(p.text) for p in scene.plates[:index])
    return tuple(range(start, start + len(scene.plates[index].text)))


def _reader(kind: str) -> Callable[[np.random.Generator, Scene], Draft | None]:
    def read(rng: np.random.Generator, scene: Scene) -> Draft | None:
        for index, plate in enumerate(scene.plates):
            if plate.kind == kind:
                size = {"number": len(DIGITS), "code": len(ALPHABET)}.get(kind)
                chance = 1 / len(WORDS) if size is None else float(size) ** -len(plate.text)
                return Draft(kind, f"What is the {kind}?", plate.text, chance, _plate(scene, index))
        return None

    return read


def character(rng: np.random.Generator, scene: Scene) -> Draft | None:
    if not scene.plates:
        return None
    index = int(rng.integers(len(scene.plates)))
    plate = scene.plates[index]
    slot = int(rng.integers(len(plate.text)))
    size = {"number": len(DIGITS), "word": len(LETTERS), "code": len(ALPHABET)}[plate.kind]
    text = f"What is the {SLOTS[slot]} character of the {plate.kind}?"
    return Draft("character", text, plate.text[slot], 1 / size, (_plate(scene, index)[slot],))


def background(rng: np.random.Generator, scene: Scene) -> Draft | None:
    if scene.tint is None:
        return None
    return Draft("background", "What color is the background?", scene.tint, 1 / len(TINTS), ())


ONE_IMAGE: dict[str, Callable[[np.random.Generator, Scene], Draft | None]] = {
    "presence": presence,
    "category": category,
    "color": color,
    "counting": counting,
    "relation": relation,
    "position": position,
    "comparison": comparison,
    "number": _reader("number"),
    "word": _reader("word"),
    "code": _reader("code"),
    "character": character,
    "small": small,
    "background": background,
}


def two_images(rng: np.random.Generator, scenes: tuple[Scene, Scene]) -> tuple[Draft, int] | None:
    """A colour or position question about a thing that only one of two images shows, and which image that is."""
    holder = int(rng.integers(2))
    elsewhere = set(_names(scenes[1 - holder]))
    for _ in range(20):
        draft = (color if rng.random() < 0.5 else position)(rng, scenes[holder])
        if draft and scenes[holder].things[draft.items[0]].name not in elsewhere:
            return Draft("two_images", draft.text, draft.answer, draft.chance, draft.items), holder
    return None
