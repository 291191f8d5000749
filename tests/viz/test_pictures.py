"""What the pictures show, read back from their pixels."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.types import Selection
from vlm_pruner.viz import (
    Choice,
    Layout,
    Window,
    film,
    film_pages,
    growth_frames,
    merge_map,
    overlay,
    save_growth,
    side_by_side,
)
from vlm_pruner.viz.canvas import sheet, slot_width
from vlm_pruner.viz.labels import label_size
from vlm_pruner.viz.merges import region_colours
from vlm_pruner.viz.overlay import _frame, dimmed, overlay_panels
from vlm_pruner.viz.palette import font, ink_on, light, order_colour, viridis

RED = (220, 40, 40)


@pytest.fixture
def image() -> Image.Image:
    return Image.new("RGB", (400, 400), RED)


def chosen(*order: int) -> Selection:
    tokens = torch.tensor(order)
    return Selection(index=tokens.sort().values, order=tokens)


def bright(panel: Image.Image) -> np.ndarray:
    """[h, w] bool: pixels that kept their colour."""
    return (np.abs(np.asarray(panel).astype(int) - RED) < 12).all(-1)


def test_kept_cells_are_bright_and_all_others_dimmed(image):
    layout = Layout.of(image.size, (1, 4, 4))
    (panel,) = overlay_panels(image, layout, chosen(5, 10), width=400, numbers=False)
    middles = bright(panel)[50::100, 50::100]
    assert middles.flatten().nonzero()[0].tolist() == [5, 10]


def test_an_outline_has_the_colour_of_its_rank(image):
    layout = Layout.of(image.size, (1, 4, 4))
    (panel,) = overlay_panels(image, layout, chosen(10, 5, 0), width=400, numbers=False)
    for rank, (x, y) in enumerate([(200, 200), (100, 100), (0, 0)]):
        assert panel.getpixel((x, y)) == order_colour(rank, 3)


def test_without_an_order_outlines_are_white(image):
    layout = Layout.of(image.size, (1, 4, 4))
    (panel,) = overlay_panels(image, layout, Selection(torch.tensor([5])), width=400)
    assert panel.getpixel((100, 100)) == (255, 255, 255)


@pytest.mark.parametrize("kept", [(5,), (5, 6, 9, 10), (0, 15), tuple(range(1, 16))])
def test_numbers_cover_nothing_that_was_kept(image, kept):
    layout = Layout.of(image.size, (1, 4, 4))
    with_, without = (overlay_panels(image, layout, chosen(*kept), width=400, numbers=n)[0] for n in (True, False))
    changed = np.asarray(ImageChops.difference(with_, without)).any(-1)
    assert changed.any()
    for token in kept:
        y, x = divmod(token, 4)
        assert not changed[y * 100 : y * 100 + 100, x * 100 : x * 100 + 100].any()


@pytest.mark.parametrize(("rows", "columns"), [(12, 2), (2, 12)])
@pytest.mark.parametrize("kept", [(2, 8, 13), (0, 23), (4, 6, 9, 11)])
def test_numbers_of_oblong_cells_cover_nothing_that_was_kept_either(image, rows, columns, kept):
    """They were as large as a cell is wide, and reached over several low ones."""
    layout = Layout.of(image.size, (1, rows, columns))
    with_, without = (overlay_panels(image, layout, chosen(*kept), width=480, numbers=n)[0] for n in (True, False))
    changed = np.asarray(ImageChops.difference(with_, without)).any(-1)
    assert changed.any()
    high, wide = 480 // rows, 480 // columns
    for token in kept:
        y, x = divmod(token, columns)
        assert not changed[y * high : (y + 1) * high, x * wide : (x + 1) * wide].any()


def test_the_swatches_of_the_legend_are_what_the_picture_shows():
    """They were tan and grey, whatever the picture."""
    image = Image.new("RGB", (400, 400), (20, 60, 200))
    image.paste((200, 30, 20), (0, 0, 100, 400))
    layout = Layout.of(image.size, (1, 4, 4))
    page = overlay(image, layout, Selection(torch.tensor([0, 4])), title="", width=600)
    colours = {colour for _, colour in page.crop((0, page.height - 60, 60, page.height)).getcolors(10_000)}
    assert (200, 30, 20) in colours, "kept"
    dropped = dimmed(image.crop((100, 0, 400, 400))).getpixel((50, 50))
    assert any(max(abs(a - b) for a, b in zip(dropped, colour, strict=True)) <= 2 for colour in colours)


def test_what_the_processor_cuts_off_is_struck_out(image):
    layout = Layout.of(image.size, (1, 4, 4), window=Window(100, 0, 300, 400))
    everything = Selection(torch.arange(16))
    (panel,) = overlay_panels(image, layout, everything, width=400)
    assert not bright(panel)[:, :98].any()
    assert not bright(panel)[:, 302:].any()
    assert bright(panel)[10:90, 110:140].all()


def test_a_selection_of_another_image_is_refused(image):
    with pytest.raises(InvalidSelectionError, match="token 20 is kept but the picture has 16 tokens"):
        overlay(image, Layout.of(image.size, (1, 4, 4)), chosen(20))


@pytest.mark.parametrize("width", [600, 960])
def test_the_sheet_is_as_wide_as_asked(image, width):
    page = overlay(image, Layout.of(image.size, (1, 4, 4)), chosen(1, 2), title="t " * 200, subtitle="s", width=width)
    assert page.size[0] == width
    assert page.mode == "RGB"


@pytest.mark.parametrize(("side", "width"), [(6, 1), (12, 2), (26, 2), (39, 3), (100, 8)])
def test_frames_grow_with_the_cells_that_they_are_around(side, width):
    assert _frame(side) == width


def test_every_frame_of_a_video_is_drawn_from_its_own_image():
    frames = [Image.new("RGB", (80, 80), c) for c in ((250, 0, 0), (0, 250, 0))]
    layout = Layout.of((80, 80), (2, 2, 2))
    panels = overlay_panels(frames, layout, Selection(torch.tensor([0, 7])), width=80)
    assert panels[0].getpixel((20, 20)) == (250, 0, 0)
    assert panels[1].getpixel((60, 60)) == (0, 250, 0)
    assert panels[1].getpixel((20, 20)) != (0, 250, 0)
    overlay(frames, layout, chosen(0, 7))


def test_neighbouring_regions_differ_and_a_region_is_one_colour():
    layout = Layout.of((80, 80), (1, 4, 4))
    source = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3])
    colours = region_colours(layout, Selection(torch.tensor([0, 2, 8, 10]), source=source))
    assert len(set(colours)) == 4
    for cells in ([0, 1, 2, 3, 7, 4, 5, 6], [1, 0, 2, 3, 7, 4, 5, 6]):  # the eighth region touches three others
        source = torch.tensor(cells)
        colours = region_colours(Layout.of((80, 40), (1, 2, 4)), Selection(source.argsort(), source=source))
        assert len(set(colours)) == 7
        assert colours[7] not in (colours[0], colours[1], colours[4])


def test_a_merge_map_tints_absorbed_cells_and_leaves_the_others_grey(image):
    grey = Image.new("RGB", (400, 400), (128, 128, 128))
    layout = Layout.of(grey.size, (1, 2, 2))
    page = merge_map(grey, layout, Selection(torch.tensor([0]), source=torch.tensor([0, 0, -1, -1])), width=400)
    pixels = np.asarray(page).astype(int)
    spread = pixels.max(-1) - pixels.min(-1)
    top = spread.shape[0] - 400 - 80
    assert spread[:, 250:380].max() > 60  # the absorbed cell
    assert (spread[top + 250 : top + 380, 20:380] == 0).mean() > 0.9  # the two without a trace


@pytest.mark.parametrize("cells", [4, 8])
def test_numbers_of_absorbed_cells_are_two_thirds_of_their_survivors(image, monkeypatch, cells):
    """Only where a cell lies apart from what absorbed it."""
    module, sizes = import_module("vlm_pruner.viz.merges"), []
    monkeypatch.setattr(module, "font", lambda size: sizes.append(size) or font(size))
    layout, source = Layout.of(image.size, (1, cells, cells)), torch.full((cells * cells,), -1)
    source[[0, 1, cells + 3]] = 0
    merge_map(image, layout, Selection(torch.tensor([0]), source=source), title="", width=640)
    assert sizes == [pytest.approx(label_size(layout.panels[0].side * 1.5, 1) * 2 / 3, abs=2)]


def test_a_merge_map_needs_a_merging_method(image):
    with pytest.raises(InvalidSelectionError, match="merges none"):
        merge_map(image, Layout.of(image.size, (1, 2, 2)), chosen(0))


def test_the_growth_adds_tokens_and_ends_with_all(image, tmp_path):
    layout = Layout.of(image.size, (1, 8, 8))
    frames = growth_frames(image, layout, chosen(*range(20, 50)), steps=6, width=240)
    areas = [int(bright(f).sum()) for f in frames]
    assert len(frames) == 6
    assert areas == sorted(areas)
    assert len(set(areas)) == 6
    save_growth(tmp_path / "g.gif", frames)
    with Image.open(tmp_path / "g.gif") as gif:
        assert (gif.n_frames, gif.info["loop"], gif.size) == (6, 0, frames[0].size)


def test_a_growth_needs_an_order(image):
    with pytest.raises(InvalidSelectionError, match="has no `order`"):
        growth_frames(image, Layout.of(image.size, (1, 2, 2)), Selection(torch.tensor([0])))


def test_side_by_side_shows_every_choice(image):
    layout = Layout.of(image.size, (1, 4, 4))
    page = side_by_side(image, layout, [Choice("one", chosen(0)), Choice("two", chosen(0, 1))], width=800)
    shown = bright(page)
    assert page.width == 800
    assert shown[:, 400:].sum() > 1.8 * shown[:, :400].sum()


def test_the_order_scale_is_monotone_in_brightness():
    luminance = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (order_colour(i, 64) for i in range(64))]
    assert luminance == sorted(luminance, reverse=True)
    assert viridis(0.0) == (68, 1, 84)
    assert viridis(1.0) == (253, 231, 37)


def test_labels_have_contrast_with_their_ground():
    """WCAG contrast of at least 4.5 for every colour of the scale."""

    for i in range(64):
        ground = order_colour(i, 64)
        low, high = sorted((light(ground), light(ink_on(ground))))
        assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize("size", [(90, 45), (190, 95), (800, 400)])
def test_panels_of_any_width_are_scaled_to_the_sheet(size):
    page = np.asarray(sheet([Image.new("RGB", size, RED)] * 2, title="", columns=2, width=420))
    panels = (page == RED).all(-1)
    wide, high = panels.any(0).sum(), panels.any(1).sum()
    assert wide == 2 * slot_width(420, 2)
    assert high == pytest.approx(wide / 4, abs=1)


@pytest.mark.parametrize("cells", [(1, 4, 4), (3, 4, 4)])
def test_only_a_single_overlay_has_numbers(image, monkeypatch, cells):
    """Small pictures of a film, of a growing selection and of a comparison have none."""
    drawn = []
    module = import_module("vlm_pruner.viz.overlay")
    monkeypatch.setattr(module, "pill", lambda draw, at, text, *_: drawn.append(text))
    layout, selection = Layout.of(image.size, cells), chosen(10, 5, 0)
    film([image] * 3, layout, selection)
    film_pages([image] * 3, layout, selection)
    growth_frames(image, layout, selection, steps=2)
    side_by_side(image, layout, [Choice("one", selection)])
    assert drawn == []
    overlay(image, layout, selection)
    assert set(drawn) == {"1", "2", "3"}


def test_captions_stand_under_their_panels():
    red = Image.new("RGB", (180, 90), (250, 0, 0))
    page = np.asarray(sheet([red, red], title="", captions=["Words", "More"], columns=2, width=420)).astype(int)
    panels = (page == (250, 0, 0)).all(-1).any(1).nonzero()[0]
    words = (page.sum(-1) < 300) & (page.max(-1) - page.min(-1) < 40)  # dark and grey
    lines = words.any(1).nonzero()[0]
    assert panels.max() < lines.min() < panels.max() + 30
    assert words[:, :210].any()
    assert words[:, 210:].any()
