"""What notebooks show of a selection and a session."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest
import torch

from vlm_pruner.types import Selection
from vlm_pruner.viz.notebook import selection_html, session_html
from vlm_pruner.viz.palette import order_colour


def plane(h: int, w: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(1), torch.arange(h), torch.arange(w)).float()


def test_a_selection_shows_its_tokens_in_the_colours_of_their_order():
    order = torch.tensor([7, 2])
    html = selection_html(Selection(order.sort().values, order, source=torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, -1])))
    marks = ET.fromstring(html).findall(".//rect")
    assert [float(m.get("x")) for m in marks] == [420.0, 120.0]
    assert marks[0].get("fill") == "#{:02x}{:02x}{:02x}".format(*order_colour(0, 2))
    assert "2 of 10 tokens kept, 7 merged into them" in html


def test_a_session_maps_every_image_and_says_why_one_was_left_alone():
    pruned = SimpleNamespace(
        modality="image", grid=(1, 2, 3), position=plane(2, 3), total=6, kept=1, note="",
        selection=Selection(torch.tensor([4])),
    )  # fmt: skip
    alone = SimpleNamespace(
        modality="image", grid=(1, 1, 2), position=plane(1, 2), total=2, kept=2, note="left alone: <too> few",
        selection=None,
    )  # fmt: skip
    html = session_html("7/8 tokens & more", [pruned, alone])
    (cell,) = ET.fromstring(html).findall(".//rect")
    assert [cell.get(k) for k in ("x", "y", "width", "height")] == ["9.0", "9.0", "9.0", "9.0"]
    assert re.search(r"image 1: 2 of 2 tokens, left alone: &lt;too&gt; few", html)
    assert "7/8 tokens &amp; more" in html


@pytest.mark.parametrize(("modality", "names"), [("image", ["tile 1", "tile 2"]), ("video", ["frame 1", "frame 2"])])
def test_tiles_of_a_picture_are_no_frames(modality: str, names: list[str]) -> None:
    """Pictures of InternVL were shown as videos."""
    position = torch.cat([plane(2, 2) + torch.tensor([float(t), 0, 0]) for t in range(2)])
    record = SimpleNamespace(
        modality=modality, grid=(2, 2, 2), position=position, total=8, kept=2, note="",
        selection=Selection(torch.tensor([1, 6])),
    )  # fmt: skip
    html = session_html("2/8 tokens", [record])
    assert re.findall('aria-label="kept tokens (.*?)"', html) == names
    maps = ET.fromstring(html).findall(".//svg")
    assert [[r.get("x") for r in one.findall("rect")] for one in maps] == [["9.0"], ["0.0"]]


def test_the_library_calls_it():
    assert "1 tokens kept" in Selection(torch.tensor([3]))._repr_html_()


def test_a_video_has_a_bar_for_every_frame() -> None:
    place = torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0), torch.arange(2.0))
    video = SimpleNamespace(
        modality="video", grid=(3, 2, 2), position=place, total=12, kept=3, note="",
        selection=Selection(torch.tensor([0, 1, 9])),
    )  # fmt: skip
    html = session_html("", [video])
    assert 'aria-label="tokens kept per frame: 2, 0, 1"' in html
    assert [html.count(f"height: {height}px") for height in ("40.0", "20.0", "0.0")] == [1, 1, 1]
    assert "tokens kept per frame" not in session_html("", [SimpleNamespace(**vars(video) | {"modality": "image"})])
