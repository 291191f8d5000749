"""The splits: fixed, disjoint, in the promised mix, answerable, and drawn the same way every time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vlm_pruner import scenes
from vlm_pruner.errors import InputError
from vlm_pruner.scenes.layout import Scene
from vlm_pruner.scenes.questions import ONE_IMAGE, item_boxes
from vlm_pruner.scenes.render import PHOTOS, backgrounds
from vlm_pruner.scenes.vocabulary import ALPHABET, CATEGORIES, COLORS, COUNTS, DIGITS, LETTERS, PLACES, TINTS, WORDS

FINGERPRINTS = {"test": "c9b9b2a17fd21f98", "validation": "46c07da10430f6d7"}
ANSWERS = {  # type -> what an answer is drawn from, of which chance is one part
    "presence": ("yes", "no"),
    "category": CATEGORIES,
    "color": tuple(COLORS),
    "counting": COUNTS,
    "relation": CATEGORIES,
    "position": PLACES,
    "word": WORDS,
    "small": tuple(COLORS),
    "background": tuple(TINTS),
}
LOCAL = {"category", "color", "counting", "relation", "position", "comparison", "number", "word", "code", "character",
         "small", "two_images"}  # fmt: skip
READ_IN_FULL = {"number", "word", "code", "character", "small", "counting", "relation"}
"""Types that need all of some local evidence: each character, each member, both things, or the one or two tokens."""


@pytest.fixture(scope="module")
def test_split() -> list[scenes.Question]:
    return scenes.load_split("test")


@pytest.mark.parametrize("split", list(scenes.SPLITS))
def test_split_is_what_it_was(split: str) -> None:
    """Another fingerprint is another benchmark: raise VERSION, and do not compare with earlier figures."""
    assert scenes.fingerprint(scenes.load_split(split)) == FINGERPRINTS[split]


def test_fingerprint_sees_answers_and_evidence(test_split: list[scenes.Question]) -> None:
    from dataclasses import replace

    first = test_split[:2]
    changed = [replace(first[0], answer="other"), first[1]]
    moved = [replace(first[0], evidence=(((0.0, 0.0, 1.0, 1.0),),)), first[1]]
    assert len({scenes.fingerprint(questions) for questions in (first, changed, moved, first[::-1])}) == 4


def test_types_take_turns_and_are_equally_many(test_split: list[scenes.Question]) -> None:
    assert [q.type for q in test_split] == list(scenes.TYPES) * scenes.PER_TYPE
    assert len({q.id for q in test_split}) == len(test_split)


def test_limit_takes_the_first_of_each_type(test_split: list[scenes.Question]) -> None:
    assert scenes.load_split("test", limit=2) == test_split[: 2 * len(scenes.TYPES)]
    code = scenes.load_split("test", limit=3, types=["code"])
    assert code == [q for q in test_split if q.type == "code"][:3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tset"}, r"unknown split 'tset'; did you mean 'test'\? Known: test, validation"),
        ({"types": ["colour"]}, r"unknown question type 'colour'; did you mean 'color'"),
        ({"limit": 0}, "between 1 and 48"),
        ({"limit": 49}, "between 1 and 48"),
    ],
)
def test_bad_requests_name_the_alternatives(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenes.load_split(**arguments)  # type: ignore[arg-type]


def _train_scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng([0, 1, 1, 0, 0])
    return [scenes.sample_scene(rng, "train", len(backgrounds("train"))) for _ in range(count)]


def test_splits_share_no_photograph_no_seed_and_no_layout(test_split: list[scenes.Question]) -> None:
    photographs = [name for names in PHOTOS.values() for name in names]
    assert len(photographs) == len(set(photographs))
    per_split = {
        "test": [s for q in test_split for s in q.scenes],
        "validation": [s for q in scenes.load_split("validation") for s in q.scenes],
        "train": _train_scenes(400),
    }
    for name, drawn in per_split.items():
        assert {s.split for s in drawn} == {name}
    for what in ("seed", "things", "plates"):
        seen = Counter(v for drawn in per_split.values() for v in {getattr(s, what) for s in drawn if getattr(s, what)})
        assert max(seen.values()) == 1, what


def test_every_answer_is_possible_and_chance_is_its_share(test_split: list[scenes.Question]) -> None:
    for q in test_split:
        if q.type in ANSWERS:
            assert q.answer in ANSWERS[q.type]
            assert q.chance == pytest.approx(1 / len(ANSWERS[q.type]))
        elif q.type == "comparison":
            assert q.chance == 0.5
            assert f"the {q.answer}" in q.text
        elif q.type == "two_images":
            assert q.chance in (1 / len(COLORS), 1 / len(PLACES))
        else:
            letters = {"number": DIGITS, "code": ALPHABET}.get(q.type, ALPHABET)
            assert set(q.answer) <= set(letters)
            bases = (len(DIGITS), len(LETTERS), len(ALPHABET)) if q.type == "character" else (len(letters),)
            assert q.chance in [pytest.approx(base ** -len(q.answer)) for base in bases]


def test_no_answer_is_right_much_more_often_than_by_chance(test_split: list[scenes.Question]) -> None:
    """Else a model without eyes would beat chance by always giving it."""
    for name in scenes.TYPES:
        mine = [q for q in test_split if q.type == name]
        commonest = Counter(q.answer for q in mine).most_common(1)[0][1] / len(mine)
        assert commonest <= max(np.mean([q.chance for q in mine]) + 0.06, 0.11), name


@pytest.mark.parametrize("name", list(ONE_IMAGE))
def test_answer_follows_from_the_scene(name: str) -> None:
    """An independent reading of the layout gives the stored answer, and only that."""
    for q in scenes.load_split("test", types=[name]):
        assert _answers(q) == {q.answer}, f"{q.id}: {q.text}"


def _answers(q: scenes.Question) -> set[str]:
    """Every answer that the layout of the question's own image allows."""
    words, scene = q.text.rstrip("?").split(), q.scenes[0]
    of_name = [t for t in scene.things if t.name == words[-1]]
    plates = {p.kind: p.text for p in scene.plates}
    if q.type == "presence":
        return {"yes" if of_name else "no"}
    if q.type == "category":
        return {t.name for t in scene.things if t.color == words[3] and t.tier != "tiny"}
    if q.type in ("color", "small"):
        return {t.color for t in of_name}
    if q.type == "counting":
        return {COUNTS[sum(t.name == words[2] for t in scene.things) - 1]}
    if q.type == "relation":
        return {t.name for t in scene.things if t.partner == words[-1] and t.role == words[2]}
    if q.type == "position":
        return {str(scene.place(t)) for t in of_name}
    if q.type == "comparison":
        sizes = {t.name: t.size for t in scene.things if t.name in (words[4], words[7])}
        return {(max if words[2] == "larger," else min)(sizes, key=sizes.__getitem__)}
    if q.type == "character":
        slot = ("first", "second", "third", "fourth", "fifth", "sixth").index(words[3])
        return {plates[words[-1]][slot]}
    return {str(scene.tint)} if q.type == "background" else {plates[q.type]}


def test_only_one_of_two_images_can_answer() -> None:
    for q in scenes.load_split("test", types=["two_images"]):
        assert len(q.scenes) == 2
        name = q.text.rstrip("?").split()[-1]
        holders = [i for i, scene in enumerate(q.scenes) if any(t.name == name for t in scene.things)]
        assert holders == [i for i, boxes in enumerate(q.evidence) if boxes]
        assert len(holders) == 1


def test_evidence_is_of_the_scene(test_split: list[scenes.Question]) -> None:
    for q in test_split:
        for scene, boxes in zip(q.scenes, q.evidence, strict=True):
            assert set(boxes) <= set(item_boxes(scene))
        absent = q.type == "background" or (q.type == "presence" and q.answer == "no")
        assert any(q.evidence) != absent


def test_half_of_the_types_need_dense_local_evidence(test_split: list[scenes.Question]) -> None:
    """Local: under a twelfth of the image. Dense: several separate pieces that must all be there, or hardly a token."""
    share = {name: [] for name in scenes.TYPES}
    for q in test_split:
        share[q.type].append(sum(len(t) for t in scenes.evidence_tokens(q)) / 576)
    assert {name for name, values in share.items() if 0 < np.mean(values) < 1 / 12} >= LOCAL
    assert len(READ_IN_FULL) >= len(scenes.TYPES) / 2
    for name in ("number", "word", "code", "relation"):
        assert all(len(q.evidence[0]) >= 2 for q in test_split if q.type == name), name
    assert max(len(scenes.evidence_tokens(q)[0]) for q in test_split if q.type == "small") <= 2


def test_larger_canvas_asks_about_larger_pictures() -> None:
    (q,) = scenes.load_split("test", limit=1, types=["word"], size=(672, 672))
    assert q.images[0].size == (672, 672)
    assert all(0 <= x0 < x1 <= 672 and 0 <= y0 < y1 <= 672 for x0, y0, x1, y1 in q.evidence[0])
