"""What each visual token shows, as words: the dense targets of the warm-up stage."""

from __future__ import annotations

import numpy as np

from vlm_pruner.models.embedded.config import GRID, PATCH
from vlm_pruner.models.embedded.tokenizer import SPACE
from vlm_pruner.scenes import vocabulary as v
from vlm_pruner.scenes.layout import Scene
from vlm_pruner.scenes.render import Rendering

NONE, IGNORE = -1, -2


def _words(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(SPACE + name for name in names)


# family -> vocabulary pieces that a token is pulled to. An integer: that many vectors of its own, which are no words.
FAMILIES: dict[str, tuple[str, ...] | int] = {
    "category": _words(v.CATEGORIES + v.TINY),
    "color": _words(tuple(v.COLORS)),
    "place": _words(v.PLACES),
    "size": _words(("smaller", "larger")),
    "role": _words(v.ROLES),
    "partner": len(v.CATEGORIES),
    "count": _words(v.COUNTS),
    "character": tuple(v.ALPHABET),
    "slot": _words(v.SLOTS),
    "kind": _words(v.KINDS),
    "tint": len(v.TINTS),
    "ground": _words(("background", "object")),
}
INDEX = {name: i for i, name in enumerate(FAMILIES)}
OFFSETS = 5  # regression targets: to a thing's centre (x, y), its size, to a plate's left and right end


def _thing_labels(scene: Scene, index: int) -> dict[str, int]:
    thing = scene.things[index]
    place = scene.place(thing)
    return {
        "category": (v.CATEGORIES + v.TINY).index(thing.name),
        "color": list(v.COLORS).index(thing.color),
        "place": IGNORE if place is None else v.PLACES.index(place),
        "size": {"small": 0, "large": 1, "medium": IGNORE, "tiny": NONE}[thing.tier],
        "role": v.ROLES.index(thing.role) if thing.role else NONE,
        "partner": v.CATEGORIES.index(thing.partner) if thing.partner else NONE,
        "count": v.COUNTS.index(thing.count) if thing.count else NONE,
        "ground": 1,
    }


def token_labels(scene: Scene, drawn: Rendering) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels int8 [families, 576], the item each token shows int8 [576] (-1: none), offsets float16 [576, OFFSETS]."""
    out = np.full((len(FAMILIES), GRID, GRID), NONE, np.int8)
    item = np.full((GRID, GRID), -1, np.int8)
    offsets = np.zeros((GRID, GRID, OFFSETS), np.float16)
    out[INDEX["ground"]] = 0
    out[INDEX["tint"]] = list(v.TINTS).index(scene.tint) if scene.tint else NONE
    y, x = (np.mgrid[:GRID, :GRID] + 0.5) * PATCH
    touched = drawn.things.sum(0) if len(drawn.things) else np.zeros((GRID, GRID))
    owner = drawn.things.argmax(0) if len(drawn.things) else touched.astype(int)
    out[:, (touched > 0.02) & (touched < 0.12)] = IGNORE
    for index, thing in enumerate(scene.things):
        mine = (owner == index) & (touched >= 0.12)
        out[:, mine] = NONE
        for family, label in _thing_labels(scene, index).items():
            out[INDEX[family], mine] = label
        item[mine] = index
        offsets[mine, :3] = np.stack([(thing.x - x) / 56, (thing.y - y) / 56, np.full_like(x, thing.size / 56)], -1)[
            mine
        ]
    start = len(scene.things)
    for plate, panel, ink in zip(scene.plates, drawn.plates, drawn.characters, strict=True):
        out[:, (panel > 0.1) & (panel < 0.5)] = IGNORE
        inside = panel >= 0.5
        out[:, inside] = NONE
        out[INDEX["kind"], panel > 0.1] = v.KINDS.index(plate.kind)
        best, most = ink.argmax(0), ink.max(0)
        left, right = plate.x, plate.x + plate.pitch * len(plate.text)
        for slot, char in enumerate(plate.text):
            mine = (best == slot) & (most >= 0.1)
            out[INDEX["character"], mine] = v.ALPHABET.index(char)
            out[INDEX["slot"], mine] = slot
            item[mine] = start + slot
            offsets[mine, 3:] = np.stack([(x - left) / 112, (right - x) / 112], -1)[mine]
        start += len(plate.text)
    return out.reshape(len(FAMILIES), -1), item.reshape(-1), offsets.reshape(-1, OFFSETS)
