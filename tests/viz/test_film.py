"""Strips and animations of what stays of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from vlm_pruner.types import Selection
from vlm_pruner.viz import Layout, film, film_layout, film_pages, kept_per_frame, save_film
from vlm_pruner.viz.film import PALE, bars, contact, film_uri
from vlm_pruner.viz.palette import ACCENT

SIZE = (64, 48)


def frames(count: int) -> list[Image.Image]:
    return [Image.new("RGB", SIZE, (20 * number % 255, 120, 200)) for number in range(count)]


def times(count: int) -> list[float]:
    return [number / 2 for number in range(count)]


def test_tokens_of_a_video_lie_on_its_frames() -> None:
    layout = film_layout([Layout.of(SIZE, (3, 2, 4))], 3, times(3))
    assert [(panel.frame, panel.name) for panel in layout.panels] == [(0, "0.0 s"), (1, "0.5 s"), (2, "1.0 s")]
    assert layout.panel.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert kept_per_frame(layout, Selection(torch.tensor([0, 1, 9, 23]))) == [2, 1, 1]


PAIRS = [(8, 4, [0, 2, 4, 6]), (7, 4, [0, 2, 4, 6]), (1, 1, [0]), (3, 2, [0, 2])]


@pytest.mark.parametrize(("count", "moments", "shown"), PAIRS)
def test_pairs_are_drawn_on_their_first_frame(count: int, moments: int, shown: list[int]) -> None:
    layout = film_layout([Layout.of(SIZE, (moments, 2, 2))], count, times(count))
    assert [panel.frame for panel in layout.panels] == shown


def test_frames_that_are_pieces_of_their_own_follow_one_another() -> None:
    whole = film_layout([Layout.of(SIZE, (4, 2, 2))], 4, times(4))
    apart = film_layout([Layout.of(SIZE, (1, 2, 2))] * 4, 4, times(4))
    assert apart.panels == whole.panels
    assert torch.equal(apart.panel, whole.panel)
    assert torch.equal(apart.boxes, whole.boxes)


def test_tokens_without_a_place_are_on_no_frame() -> None:
    place = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0.5]])
    layout = film_layout([Layout.of(SIZE, (2, 1, 1), place)] * 2, 4, times(4))
    assert layout.panel.tolist() == [0, 1, -1, 2, 3, -1]
    assert kept_per_frame(layout, Selection(torch.arange(6))) == [1, 1, 1, 1]


def test_the_strip_is_bright_where_tokens_stay() -> None:
    layout = film_layout([Layout.of(SIZE, (2, 1, 1))], 2, times(2))
    strip = np.asarray(film(frames(2), layout, Selection(torch.tensor([1])), width=600))
    assert strip.shape[1] == 600
    left, right = strip[: strip.shape[0] // 2, :300], strip[: strip.shape[0] // 2, 300:]
    blue = (120, 200)
    assert (right[..., 1:] == blue).all(-1).sum() > 1000
    assert not (left[..., 1:] == blue).all(-1).any()


def test_bars_are_as_high_as_their_counts() -> None:
    drawn = np.asarray(bars([2, 1, 0], 300, marked=0))
    columns = [int((drawn[:, x] == colour).all(-1).sum()) for x, colour in ((50, ACCENT), (150, PALE), (250, PALE))]
    assert columns[0] == pytest.approx(2 * columns[1], abs=2)
    assert columns[2] <= 1


def test_the_first_and_the_last_frame_have_their_number_under_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, *args, **kwargs: words.append(text))
    bars([2, 1, 0], 300)
    assert words == ["tokens kept per frame, at most 2", "1", "3"]


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_the_animation_has_a_page_for_every_frame(ending: str, tmp_path: Path) -> None:
    layout = film_layout([Layout.of(SIZE, (3, 2, 2))], 3, times(3))
    pages = film_pages(frames(3), layout, Selection(torch.tensor([0, 5])), width=200)
    save_film(tmp_path / f"a.{ending}", pages)
    with Image.open(tmp_path / f"a.{ending}") as film_:
        assert (film_.n_frames, film_.size) == (3, pages[0].size)
        assert film_.info["loop"] == 0
    assert film_uri(pages).startswith("data:image/webp;base64,UklG")


def test_a_contact_sheet_shows_some_of_many_frames() -> None:
    few, many = contact(frames(2), times(2)), contact(frames(32), times(32))
    assert few.width == many.width == 640
    assert many.height > few.height / 2


@pytest.mark.parametrize(("count", "columns"), [(3, 3), (8, 4), (12, 4), (13, 8), (40, 8)])
def test_short_videos_have_four_frames_in_a_row_and_longer_ones_more(count: int, columns: int) -> None:
    layout = film_layout([Layout.of(SIZE, (count, 2, 2))], count, times(count))
    strip = film(frames(count), layout, Selection(torch.arange(0, count * 4, 4)), width=960)
    wide = np.asarray(strip.convert("RGB"))
    pictures = (wide[:, :, 1] == 120) & (wide[:, :, 2] == 200)  # of kept tokens: the frames' own colour
    columns_seen = np.flatnonzero(np.diff(pictures.any(0).astype(int)) == 1)
    assert len(columns_seen) + int(pictures.any(0)[0]) == columns
