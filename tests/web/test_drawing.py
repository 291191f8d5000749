"""The picture that can be played: one cell for each kept token, in its place and with its rank."""

from __future__ import annotations

import re

import torch
from PIL import Image

from vlm_pruner.types import Selection
from vlm_pruner.video import Clip
from vlm_pruner.viz import Layout, film_layout
from vlm_pruner.web.drawing import film_html, plain_picture, selection_svg

IMAGE = Image.radial_gradient("L").resize((480, 240)).convert("RGB")
LAYOUT = Layout.of(IMAGE.size, (1, 4, 8))  # cells of 60 x 60 pixels
CHOSEN = Selection(torch.tensor([1, 9, 31]), order=torch.tensor([31, 1, 9]))


def rects(svg: str) -> list[dict[str, str]]:
    group = svg.split("<g ")[1]
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(r"<rect ([^>]*)/>", group)]


def test_every_kept_token_has_its_cell_and_rank():
    cells = rects(selection_svg(IMAGE, LAYOUT, CHOSEN, name="three", key="a"))
    places = {int(c["data-rank"]): tuple(int(c[k]) for k in ("x", "y", "width", "height")) for c in cells}
    assert places == {0: (420, 180, 60, 60), 1: (60, 0, 60, 60), 2: (60, 60, 60, 60)}
    assert len({c["stroke"] for c in cells}) == 3


def test_the_bright_picture_is_cut_to_the_same_cells():
    svg = selection_svg(IMAGE, LAYOUT, CHOSEN, name="three", key="a")
    clip = re.search(r'<clipPath id="a-0">(.*?)</clipPath>', svg)
    assert clip is not None
    assert sorted(re.findall(r'data-rank="(\d)"', clip[1])) == ["0", "1", "2"]
    assert 'clip-path="url(#a-0)"' in svg
    assert 'data-kept="3"' in svg


def test_without_an_order_nothing_can_be_played():
    svg = selection_svg(IMAGE, LAYOUT, Selection(CHOSEN.index), name="three", key="a")
    assert "data-rank" not in svg
    assert "data-kept" not in svg
    assert {c["stroke"] for c in rects(svg)} == {"#ffffff"}


def test_names_are_escaped():
    for html in (plain_picture(IMAGE, '"<b>'), selection_svg(IMAGE, LAYOUT, CHOSEN, name='"<b>', key="a")):
        assert "<b>" not in html
        assert "&quot;&lt;b&gt;" in html


def test_a_film_has_a_figure_and_a_bar_for_every_frame() -> None:
    clip = Clip.of([Image.new("RGB", (40, 30), (20 * n, 90, 90)) for n in range(3)], 2.0)
    layout = film_layout([Layout.of(clip.size, (3, 2, 2))], 3, clip.times)
    html = film_html(clip, layout, Selection(torch.tensor([0, 1, 5])), name="Tokens that EVS keeps")
    assert html.count("<figure ") == 3
    assert html.count("<figure data-frame") - html.count(" hidden>") == 1, "one of them is shown"
    for caption in ("0.0 s: 2 tokens kept", "0.5 s: 1 tokens kept", "1.0 s: 0 tokens kept"):
        assert caption in html
    assert [html.count(f'height:{share}%"') for share in (100, 50, 0)] == [1, 1, 1]
    assert 'data-frames="3"' in html
    assert "Tokens that EVS keeps: 3 of 12, by frame 2, 1, 0" in html
