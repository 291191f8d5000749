"""Scenes in motion: fixed splits, answers that the frames bear out, evidence where it is said to be."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from vlm_pruner.errors import InputError
from vlm_pruner.scenes.motion import FRAMES, SIDE, Motion, sample_motion
from vlm_pruner.scenes.motion_questions import MOTION, MOTION_TYPES
from vlm_pruner.scenes.motion_splits import (
    MOTION_PER_TYPE,
    MotionQuestion,
    load_motion_split,
    motion_fingerprint,
)
from vlm_pruner.scenes.render import PHOTOS, render
from vlm_pruner.scenes.splits import SPLITS

FINGERPRINTS = {"test": "1cb38d3fb27870a0", "validation": "736cb6bfe9cf9011"}


@pytest.fixture(scope="module")
def split() -> list[MotionQuestion]:
    return load_motion_split("test")


def motions(count: int) -> list[Motion]:
    rng = np.random.default_rng(5)
    return [sample_motion(rng, "test", 3) for _ in range(count)]


@pytest.mark.parametrize("name", list(SPLITS))
def test_split_is_what_it_was(name):
    """Another fingerprint is another benchmark: raise MOTION_VERSION, and do not compare with earlier figures."""
    assert motion_fingerprint(load_motion_split(name)) == FINGERPRINTS[name]


def test_every_type_has_its_number_and_names_are_unique(split):
    assert Counter(q.type for q in split) == dict.fromkeys(MOTION_TYPES, MOTION_PER_TYPE)
    assert len({q.id for q in split}) == len(split)
    assert len(MOTION_TYPES) >= 7


def test_a_limit_takes_the_first_of_every_type(split):
    few = load_motion_split("test", 3)
    assert Counter(q.type for q in few) == dict.fromkeys(MOTION_TYPES, 3)
    assert {q.id for q in few} <= {q.id for q in split}
    assert {q.type for q in load_motion_split("test", 2, ["order", "word"])} == {"order", "word"}
    for arguments in (("train",), ("test", 0), ("test", 41), ("test", 2, ["code"])):
        with pytest.raises(InputError):
            load_motion_split(*arguments)


def test_splits_share_no_photograph_and_no_layout(split):
    other = load_motion_split("validation")
    assert not {(s.seed, s.photo) for q in split for s in q.motion.scenes} & {
        (s.seed, s.photo) for q in other for s in q.motion.scenes
    }
    assert {s.split for q in split for s in q.motion.scenes} == {"test"}
    assert not set(PHOTOS["test"]) & set(PHOTOS["validation"])


def test_small_families_of_answers_are_levelled(split):
    for name, most in (("presence", 20), ("place", 10), ("direction", 10), ("counting", 14), ("when", 14)):
        assert max(Counter(q.answer for q in split if q.type == name).values()) <= most


def test_nothing_leaves_the_frame_or_covers_another_thing():
    for motion in motions(200):
        assert len(motion.items) < 62  # evidence is a set of bits while training
        for scene in motion.scenes:
            boxes = [t.box for t in scene.things] + [p.box for p in scene.plates]
            for x0, y0, x1, y1 in boxes:
                assert min(x0, y0) > -2
                assert max(x1, y1) < SIDE + 2
            still = [b for b, t in zip(boxes, scene.things, strict=False)]
            for i, (a, b, c, d) in enumerate(still):
                assert all(c < e + 3 or g < a + 3 or d < f + 3 or h < b + 3 for e, f, g, h in still[:i])


def test_items_point_at_what_they_are():
    for motion in motions(60):
        for track in motion.tracks:
            found = motion.seen(track)
            assert [motion.items[i][0] for i in found] == list(track.shown)
            assert [motion.items[i][1] for i in found] == [track.things[f].box for f in track.shown]
        for sign in motion.signs:
            frames = [motion.items[i][0] for i in motion.written(sign)]
            assert frames == [f for f in sign.frames for _ in sign.plate.text]
            assert motion.items[motion.written(sign)[0]][1] == sign.plate.slot_box(0)


def test_answers_follow_from_the_tracks(split):
    """Recomputed from the scenes alone, without the tracks that the questions were made of."""
    for q in split:
        scenes, words = q.motion.scenes, q.text.rstrip("?").replace(",", "").split()
        names = [{t.name for t in s.things} for s in scenes]
        first_seen = {n: min(f for f in range(FRAMES) if n in names[f]) for n in set().union(*names)}
        moment = {"start": 0, "end": FRAMES - 1}.get(words[-1])
        if q.type == "color":
            assert q.answer == next(t.color for t in scenes[moment].things if t.name == words[4])
        elif q.type == "presence":
            assert (q.answer == "yes") == (words[3] in names[moment])
        elif q.type == "order":
            earlier = sorted((words[4], words[7]), key=first_seen.__getitem__)
            assert q.answer == earlier[words[2] == "last"]
        elif q.type == "first":
            assert names[0 if words[3] == "first" else -1] == {q.answer}
        elif q.type == "after":
            known = first_seen[words[4]]
            shift = 1 if words[2] == "after" else -1
            run = [f for f in range(FRAMES) if words[4] in names[f]]
            assert names[run[-1] + 1 if shift == 1 else known - 1] == {q.answer}
        elif q.type == "counting":
            seen = [words[5] in n for n in names]
            runs = sum(now and not before for before, now in zip([False, *seen], seen, strict=False))
            assert q.answer == ("one", "two", "three")[runs - 1]
        elif q.type == "background":
            assert q.answer == scenes[moment].tint
        elif q.type in ("place", "direction"):
            xy = [next((t.x, t.y) for t in s.things if t.name == words[3]) for s in (scenes[0], scenes[-1])]
            if q.type == "place":
                x, y = xy[moment > 0]
                assert q.answer == f"{'bottom' if y > SIDE / 2 else 'top'}-{'right' if x > SIDE / 2 else 'left'}"
            else:
                dx, dy = xy[1][0] - xy[0][0], xy[1][1] - xy[0][1]
                assert {"left": dx < -20, "right": dx > 20, "up": dy < -20, "down": dy > 20}[q.answer]
        elif q.type in ("word", "number"):
            texts = [[p.text for p in s.plates if p.kind == q.type] for s in scenes]
            shown = list(dict.fromkeys(t for frame in texts for t in frame))
            assert q.answer == shown[-1 if words[3] == "last" else 0]
            assert sum(q.answer in frame for frame in texts) == 2
        else:
            shown = [
                f for f in range(FRAMES) if words[3] in names[f] or any(p.kind == words[3] for p in scenes[f].plates)
            ]
            middle = sum(shown) / len(shown) / (FRAMES - 1)
            assert q.answer == ("start" if middle < 0.3 else "end" if middle > 0.7 else "middle")


def test_evidence_lies_in_the_frames_that_show_it(split):
    for q in split:
        assert len(q.evidence) == FRAMES
        assert any(q.evidence) == (q.type != "background")
        tokens = q.tokens(q.evidence, (8, 8))
        for boxes, found in zip(q.evidence, tokens, strict=True):
            assert bool(boxes) == bool(len(found))
            assert torch.equal(found, found.unique())
    word = next(q for q in split if q.type == "word")
    assert sum(bool(boxes) for boxes in word.evidence) == 2


def test_frames_are_drawn_alike_and_stand_still_where_nothing_happens():
    motion = next(m for m in motions(100) if m.camera == "still" and not m.cuts and not m.signs)
    one, again = (np.asarray(render(motion.scenes[0]).image, np.int16) for _ in range(2))
    assert (one == again).all()
    assert one.shape == (SIDE, SIDE, 3)
    later = np.asarray(render(motion.scenes[1]).image, np.int16)
    assert (np.abs(one - later).max(2) > 0).mean() < 0.4  # only what moves


def test_cameras_differ():
    seen = {}
    for motion in motions(200):
        if motion.cuts or motion.signs:
            continue
        first, second = motion.scenes[:2]
        seen[motion.camera] = (first.crop != second.crop, first.seed != second.seed)
    assert seen == {"still": (False, False), "pan": (True, False), "noise": (False, True)}


def test_a_camera_that_pans_drifts_by_less_than_a_third_and_one_way():
    across = []
    for motion in motions(200):
        if motion.camera == "pan" and not motion.cuts:
            places = [scene.crop[0] for scene in motion.scenes]
            steps = {round(b - a, 6) for a, b in pairwise(places) if 0 < b < 1}
            assert len(steps) <= 1
            assert len({scene.crop[1:] for scene in motion.scenes}) == 1
            across.append(places[-1] - places[0])
    assert -0.3 < min(across) < -0.15
    assert 0.15 < max(across) < 0.3


def test_crops_are_those_of_the_published_figures():
    """The fingerprint of a split names photographs, tints and seeds, and no crops."""
    scenes = [scene for motion in motions(40) for scene in motion.scenes]
    crops = [[round(float(share), 4) for share in scene.crop] for scene in scenes]
    assert hashlib.sha256(json.dumps(crops).encode()).hexdigest()[:16] == "b55e5edcbeff9dfe"


def test_a_question_needs_something_to_ask_about():
    rng = np.random.default_rng(0)
    asked = {name for motion in motions(80) for name, ask in MOTION.items() if ask(rng, motion)}
    assert asked == set(MOTION_TYPES)
    slides = next(m for m in motions(80) if m.tracks[0].part == "slide")
    assert MOTION["color"](rng, slides) is None
    assert MOTION["number"](rng, slides) is None


def test_scores(split):
    question = next(q for q in split if q.type == "counting")
    assert question.score(question.answer)
    assert question.score({"one": "1", "two": "2", "three": "3"}[question.answer])
    assert not question.score("four")
