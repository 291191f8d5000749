"""Pictures: the same every time, and what a box promises is there in the pixels."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_pruner import scenes
from vlm_pruner.scenes.layout import Scene
from vlm_pruner.scenes.render import ASSETS, PHOTOS, _background, _texture, backgrounds
from vlm_pruner.scenes.vocabulary import COLORS


def draw(number: int, split: str = "test", **changes: object) -> Scene:
    rng = np.random.default_rng([7, number])
    return replace(scenes.sample_scene(rng, split, len(backgrounds(split))), **changes)  # type: ignore[arg-type]


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(scenes.render(scene).image, np.int16)


def test_same_scene_same_pixels() -> None:
    assert np.array_equal(pixels(draw(0)), pixels(draw(0)))
    assert not np.array_equal(pixels(draw(0)), pixels(draw(1)))


@pytest.mark.parametrize("number", range(4))
def test_things_and_plates_change_pixels_inside_their_boxes_only(number: int) -> None:
    scene = draw(number, occluded=frozenset())
    # Plates draw from the generator of the grain: compare only scenes with the same plates, or none at all.
    bare = pixels(replace(scene, things=(), plates=()))
    drawn = pixels(replace(scene, plates=()))
    changed = np.abs(drawn - bare).max(-1) > 0
    allowed = np.zeros_like(changed)
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        mine = changed[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1]
        assert mine.mean() > 0.15, thing
        margin = 0.12 * thing.size + 1  # a turned pictogram sticks out a little
        allowed[max(0, int(y0 - margin)) : int(y1 + margin) + 2, max(0, int(x0 - margin)) : int(x1 + margin) + 2] = True
    assert not (changed & ~allowed).any()


def test_a_thing_shows_its_colour() -> None:
    for number in range(6):
        scene = draw(number, occluded=frozenset())
        drawn = pixels(scene)
        for thing in scene.things:
            x0, y0, x1, y1 = (int(v) for v in thing.box)
            inside = drawn[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1].reshape(-1, 3)
            distance = np.abs(inside - np.array(COLORS[thing.color])).max(1)
            assert (distance < 60).mean() > 0.03, (number, thing)  # a skull has the least


def test_coverage_maps_agree_with_boxes() -> None:
    for number in range(6):
        scene = draw(number)
        drawn = scenes.render(scene)
        assert drawn.things.shape == (len(scene.things), 24, 24)
        assert [c.shape[0] for c in drawn.characters] == [len(p.text) for p in scene.plates]
        for thing, share in zip(scene.things, drawn.things, strict=True):
            rows, columns = np.nonzero(share > 0.3)
            tokens = scenes.box_tokens(thing.box, scene.size, (24, 24), least=0.01)
            assert set(rows * 24 + columns) <= set(tokens.tolist()), (number, thing)


def test_size_and_grid_are_free() -> None:
    rng = np.random.default_rng(3)
    scene = scenes.sample_scene(rng, "validation", len(backgrounds("validation")), (640, 480))
    drawn = scenes.render(scene, grid=12)
    assert drawn.image.size == (640, 480)
    assert drawn.plates.shape[1:] == (12, 12)
    assert all(x1 <= 640 and y1 <= 480 for _, _, x1, y1 in (t.box for t in scene.things))


class Steady:
    """Draws the number with which a photograph keeps its brightness."""

    def random(self) -> float:
        return 0.875


@pytest.mark.parametrize(
    ("size", "crop", "box"),
    [
        ((300, 100), (0.5, 1.0, 0.5, False), (40, 580 / 3, 360, 300)),
        ((300, 100), (1.0, 0.0, 1.0, False), (0, 0, 400, 400 / 3)),
        ((100, 200), (1.0, 0.25, 0.0, True), (310, 30, 400, 210)),
    ],
)
def test_a_background_is_the_part_of_the_photograph_that_was_drawn(
    size: tuple[int, int],
    crop: tuple[float, float, float, bool],
    box: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y, x = np.mgrid[:300, :400]
    photo = Image.fromarray(np.stack([x // 2, y // 2, (x + y) // 4], -1).astype(np.uint8))
    monkeypatch.setattr(import_module("vlm_pruner.scenes.render"), "backgrounds", lambda split: [photo])
    scene = draw(0, size=size, crop=crop, photo=5, tint=None)
    shown = photo.resize(size, Image.Resampling.BILINEAR, box=box)
    shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop[3] else shown
    found = np.asarray(_background(scene, Steady()), np.int16)  # type: ignore[arg-type]
    assert np.abs(found - np.asarray(shown)).max() <= 1


def test_layouts_of_other_sizes_are_those_of_the_published_figures() -> None:
    """Splits have one size; own pictures and videos have others."""
    boxes = []
    for number, size in enumerate(((640, 480), (112, 112), (224, 336), (900, 700)) * 5):
        scene = scenes.sample_scene(np.random.default_rng([7, number]), "test", 3, size)
        boxes.append([[round(x, 1) for x in item.box] for item in (*scene.things, *scene.plates)])
    assert hashlib.sha256(json.dumps(boxes).encode()).hexdigest()[:16] == "90cf6cb7a7cafeee"


def test_objects_do_not_overlap() -> None:
    for number in range(40):
        scene = draw(number)
        boxes = [t.box for t in scene.things] + [p.box for p in scene.plates]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (number, a, b)


def test_every_photograph_is_there_and_listed_with_its_terms() -> None:
    names = {name for names in PHOTOS.values() for name in names}
    assert {path.stem for path in ASSETS.glob("*.jpg")} == names | {"demo"}
    listed = (ASSETS.parents[3] / "ASSETS.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"`{name}.jpg`" not in listed] == []


def sampled() -> np.ndarray:
    """uint8 [rows, 336, 3]: some rows of three scenes, with every kind of thing and plate, and of textures."""
    shown = [pixels(draw(number, occluded=frozenset(range(number))))[::12] for number in (1, 2, 4)]
    textures = [np.asarray(_texture(np.random.default_rng(sort), sort))[::48, :336] for sort in range(3)]
    return np.concatenate(shown + textures).astype(np.uint8)


def test_pixels_are_those_of_the_published_figures() -> None:
    """The fingerprints of the splits do not see how scenes are drawn. Other pixels are another benchmark: then raise
    VERSION, and write `Image.fromarray(sampled())` to the file."""
    with Image.open(Path(__file__).with_name("rendered.png")) as file:
        stored = np.asarray(file, np.int16)
    assert np.abs(stored - sampled()).max() <= 6  # another decoder of JPEG, another rounding


def test_demo_picture_is_the_demo_scene() -> None:
    with Image.open(scenes.DEMO) as file:
        stored = np.asarray(file.convert("RGB"), np.int16)
    drawn = pixels(scenes.demo_scene())
    assert stored.shape == drawn.shape
    assert np.abs(stored - drawn).mean() < 4  # JPEG at quality 90
