"""Words on pictures: what has no face is left out, what is too long is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, features

from vlm_pruner.types import Selection
from vlm_pruner.viz import Layout, overlay
from vlm_pruner.viz import text as words
from vlm_pruner.viz.text import length, shorten, wrap


@pytest.fixture
def alone(monkeypatch):
    """A system without any font."""
    caches = (words._face, words._has, words._first)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(words, "_missing", set(words._FALLBACKS))
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("text", ["这是什么？", "ما هذا؟", "\U0001f600\U0001f469\u200d\U0001f467", "हिन्दी"])
def test_signs_without_a_face_are_left_out(alone, text):
    assert wrap(f"What {text.split()[0]} is", 20, 300) == ["What … is"]


def test_a_letter_without_its_accent_stands_for_one_that_is_missing(alone):
    assert wrap("café", 20, 300) == ["cafe"]


@pytest.mark.parametrize("letters", [1, 7, 10])
def test_a_line_is_filled_to_its_last_pixel(letters):
    width = length("M" * letters, 12)
    assert width == int(width)
    assert wrap("M" * 20, 12, int(width), 20)[:2] == ["M" * letters] * 2


@pytest.mark.parametrize("text", ["这是什么？", "ما هذا؟", "\U0001f600", "हि", "Ω"])
def test_no_sign_is_ever_a_box(text):
    """Whatever fonts this system has: no sign of a line looks as one that no font has."""
    (line,) = wrap(text, 20, 300)
    for sign in line.replace(" ", ""):
        ((face, part),) = words._runs(sign)
        mask, box = (words._face(face, 20).getmask(one) for one in (part, words._NOWHERE))
        assert (mask.size, bytes(mask)) != (box.size, bytes(box))


@pytest.mark.skipif(not features.check("raqm"), reason="without it no letters from right to left are drawn")
def test_a_line_that_begins_with_arabic_still_runs_from_left_to_right():
    """The words behind the question stood before it."""
    if not words._shown("م"):
        pytest.skip("this system has no Arabic letters")
    ends = []
    for line in ("ما هذا", "ما هذا Answer WWWW"):
        page = Image.new("RGB", (600, 40), (255, 255, 255))
        words.write(ImageDraw.Draw(page), (0, 0), line, 20, (0, 0, 0))
        ends.append(np.asarray(page)[:, : int(length("ما هذا", 20)) - 4])
    assert np.array_equal(*ends), "the question stands at the left, the answer behind it"


def test_lines_fit_and_a_cut_is_marked():
    for text in ("a" * 5000, "word " * 2000, "W" * 37):
        lines = wrap(text, 20, 300, 3)
        assert len(lines) <= 3
        assert all(length(line, 20) <= 300 for line in lines)
    assert wrap("a" * 5000, 20, 300, 3)[-1].endswith("…")
    assert "".join(wrap("abcdefghij" * 20, 20, 300)) == "abcdefghij" * 20
    assert shorten("a  b\nc" + "d" * 100, 10) == "a b cdddd…"


def test_a_word_of_ten_thousand_signs_is_measured_line_by_line(monkeypatch):
    """Every line measured all that was left: a pasted word of 10,000 signs took seven seconds."""
    measured = []
    monkeypatch.setattr(words, "length", lambda line, size: measured.append(line) or length(line, size))
    lines = wrap("x" * 10_000, 20, 300)
    assert "".join(lines) == "x" * 10_000
    assert all(length(line + "x", 20) > 300 for line in lines[:-1])
    assert max(map(len, measured[1:])) < 3 * len(lines[0])


def test_a_long_question_leaves_room_for_the_picture():
    image, layout = Image.new("RGB", (400, 400)), Layout.of((400, 400), (1, 4, 4))
    pages = [
        overlay(image, layout, Selection(torch.tensor([1])), title=t, subtitle=t, width=600)
        for t in ("short", "long " * 2000, "x" * 10_000)
    ]
    assert max(page.height for page in pages) < pages[0].height + 250


def test_signs_that_show_nothing_are_left_out():
    assert words._readable("a\u200bb\u2060c\ufe0fd\x07e") == "abcde"
    assert words._readable("caf\u0065\u0301") == "caf\u00e9"
