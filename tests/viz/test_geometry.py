"""Token rectangles against what the processors really show: images whose colour says where a pixel is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from vlm_pruner.adapters.base import Encoded
from vlm_pruner.adapters.llava_next import LlavaNext, LlavaOnevision
from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.viz import Layout, Window, image_window
from vlm_pruner.viz.overlay import pixel_box

SIZES = [(336, 336), (600, 400), (400, 600), (1000, 300), (97, 211), (120, 90)]
RAW = {"do_rescale": False, "do_normalize": False}


def coded(size: tuple[int, int]) -> Image.Image:
    """Red grows from left to right, green from top to bottom, both from 0 to 255."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 255)], -1).round().astype("uint8"))


def seen(pixels: np.ndarray, size: tuple[int, int], patch: int) -> torch.Tensor:
    """[n, 2] original (x, y) at the middle of every patch of [3, H, W] coded pixels; NaN on padding."""
    channels, height, width = pixels.shape
    grid = torch.as_tensor(np.asarray(pixels, dtype="float32")).view(
        channels, height // patch, patch, width // patch, patch
    )
    mean = grid.mean((2, 4)).flatten(1)  # [3, n]
    place = mean[:2].T / 255 * torch.tensor([size[0] - 1.0, size[1] - 1.0])
    return torch.where((mean[2] > 254.5)[:, None], place, torch.nan)


def assert_within_a_patch(layout: Layout, places: torch.Tensor) -> None:
    """The middle of each rectangle is at most one patch from where the pixels came from."""
    middle = (layout.boxes[:, :2] + layout.boxes[:, 2:]) / 2
    patch = layout.boxes[:, 2:] - layout.boxes[:, :2]
    there = ~places[:, 0].isnan()
    assert there.any()
    assert (((middle - places).abs() <= patch + 1)[there]).all()


@pytest.mark.parametrize("size", SIZES)
def test_clip_shows_the_centre_of_an_oblong_image(size):
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112}, resample=2, **RAW
    )
    pixels = processor(coded(size), return_tensors="np")["pixel_values"][0]
    layout = Layout.of(size, (1, 8, 8), window=image_window(processor, size))
    assert_within_a_patch(layout, seen(pixels, size, 14))


@pytest.mark.parametrize("size", SIZES)
def test_padding_to_a_square_reaches_beyond_the_image(size):
    processor = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112}, resample=2, **RAW
    )
    pixels = processor(coded(size), return_tensors="np")["pixel_values"][0]
    window = image_window(processor, size)
    assert (window.width, window.height) == (pytest.approx(max(size), rel=0.002),) * 2
    assert_within_a_patch(Layout.of(size, (1, 8, 8), window=window), seen(pixels, size, 14))


@pytest.mark.parametrize("size", [(336, 336), (600, 400), (400, 600), (120, 90)])
def test_merged_grids_cover_the_whole_image(size):
    processor = Qwen2VLImageProcessorPil(resample=2, **RAW)
    out = processor(coded(size), return_tensors="np")
    t, h, w = (int(v) for v in out["image_grid_thw"][0])
    tokens = out["pixel_values"].reshape(t * h * w // 4, 4, 3, -1)[..., :196]  # four patches a token, first frame
    mean = torch.as_tensor(tokens).float().mean((1, 3))  # [n, 3]
    places = mean[:, :2] / 255 * torch.tensor([size[0] - 1.0, size[1] - 1.0])
    layout = Layout.of(size, (t, h // 2, w // 2), window=image_window(processor, size))
    assert_within_a_patch(layout, places)


TILES = [[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]]


@pytest.mark.parametrize("size", [(336, 336), (600, 400), (400, 600), (1000, 300), (97, 211), (150, 149)])
@pytest.mark.parametrize("family", ["next", "onevision"])
def test_tiles_and_overview_cover_the_whole_image(family, size):
    """Real tiling, real layout: every token's rectangle against the pixels of the patch that stands behind it."""
    if family == "next":
        sizes = {"size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112}}
        processor = LlavaNextImageProcessorPil(image_grid_pinpoints=TILES, resample=2, **sizes, **RAW)
        adapter = LlavaNext()
    else:
        sizes = {"size": {"height": 112, "width": 112}}
        processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=TILES, resample=2, **sizes, **RAW)
        adapter = LlavaOnevision()
    out = processor(coded(size), return_tensors="np")
    pixels = out["pixel_values"][0]  # [tiles, 3, 112, 112], the overview first
    behind = torch.cat([seen(tile, size, 14) for tile in pixels])  # [patches, 2]
    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=112, patch_size=14),
        image_grid_pinpoints=TILES,
        vision_aspect_ratio="anyres_max_2",  # so small that large pictures are interpolated
    )
    (tokens,) = adapter.image_layouts(config, Encoded({"image_sizes": out["image_sizes"]}, pixels.shape, None))
    layout = Layout.of(size, tokens.grid, tokens.position, window=image_window(processor, size), total=tokens.tokens)
    placed = layout.panel >= 0
    assert [p.name for p in layout.panels] == ["overview", "detail"]
    assert torch.equal(placed, tokens.patch >= 0)  # newlines alone have no place
    assert_within_a_patch(
        replace(layout, boxes=layout.boxes[placed], panel=layout.panel[placed], cell=layout.cell[placed]),
        behind[tokens.patch[placed]],
    )


def test_a_processor_is_found_inside_the_whole_one_and_none_is_the_whole_image():
    crop = {"height": 100, "width": 100}
    whole = SimpleNamespace(image_processor=CLIPImageProcessorPil(size={"shortest_edge": 100}, crop_size=crop))
    assert image_window(whole, (300, 100)) == pytest.approx((100, 0, 200, 100), abs=0.2)
    assert image_window(None, (30, 20)) == Window(0, 0, 30, 20)
    assert image_window(SiglipImageProcessorPil(size=crop), (30, 20)) == Window(0, 0, 30, 20)


def test_boxes_of_a_grid_tile_the_window():
    layout = Layout.of((60, 40), (1, 2, 3))
    assert layout.boxes[0].tolist() == [0, 0, 20, 20]
    assert layout.boxes[5].tolist() == [40, 20, 60, 40]
    area = (layout.boxes[:, 2:] - layout.boxes[:, :2]).prod(1).sum()
    assert area == 60 * 40


def test_every_frame_of_a_video_is_a_panel():
    layout = Layout.of((60, 40), (3, 2, 2))
    assert [p.name for p in layout.panels] == ["frame 1", "frame 2", "frame 3"]
    assert [p.frame for p in layout.panels] == [0, 1, 2]
    assert layout.panel.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def plane(h: int, w: int) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(1), torch.arange(h), torch.arange(w)).float()


@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (12, 12), (4, 4), (3, 12), (5, 7)])
def test_overview_and_tiles_are_told_apart(rows, columns):
    """Also where centres of overview cells fall on whole numbers (factors 1 and 3)."""
    side = 4
    overview = (plane(side, side) + 0.5) * torch.tensor([1, rows / side, columns / side]) - 0.5
    overview[:, 0] = 0
    detail = [
        torch.cat([plane(rows, columns)[y * columns : (y + 1) * columns], torch.tensor([[0, y, columns - 0.5]])])
        for y in range(rows)
    ]
    layout = Layout.of((120, 80), (1, rows, columns), torch.cat([overview, *detail]))
    assert [p.name for p in layout.panels] == ["overview", "detail"]
    assert layout.panel[:16].tolist() == [0] * 16
    assert layout.boxes[0].tolist() == [0, 0, 30, 20]
    tail = layout.panel[16:].view(rows, columns + 1)
    assert (tail[:, :columns] == 1).all()
    assert (tail[:, columns] == -1).all()  # newlines have no place
    last = layout.boxes[16 + rows * (columns + 1) - 2]
    assert torch.allclose(last, torch.tensor([120 - 120 / columns, 80 - 80 / rows, 120.0, 80.0]))


def test_a_token_for_the_whole_picture_has_no_place():
    position = torch.cat([torch.tensor([[0, 0.5, 1.5]]), plane(2, 4)])
    layout = Layout.of((40, 20), (1, 2, 4), position)
    assert layout.panel.tolist() == [-1] + [0] * 8
    assert layout.boxes[0].isnan().all()


def test_geometry_that_does_not_fit_is_refused():
    with pytest.raises(InvalidSelectionError, match=r"needs the grid \(t, h, w\)"):
        Layout.of((4, 4))
    with pytest.raises(InvalidSelectionError, match="describes 4 tokens but there are 5"):
        Layout.of((4, 4), (1, 2, 2), total=5)
    with pytest.raises(InvalidSelectionError, match="positions reach"):
        Layout.of((4, 4), (1, 2, 2), plane(3, 3))
    with pytest.raises(InvalidSelectionError, match="none of the 2 tokens has a place"):
        Layout.of((4, 4), (1, 2, 2), torch.full((2, 3), -1.0))


@pytest.mark.parametrize("width", [97, 240, 600, 863])
def test_drawn_cells_share_no_pixel_and_leave_none_out(width):
    layout = Layout.of((331, 331), (1, 24, 24))
    scale = width / 331
    covered = torch.zeros(width, width, dtype=torch.int64)
    for token in range(576):
        left, top, right, bottom = (int(v) for v in pixel_box(layout, token, scale, (width, width)))
        covered[top : bottom + 1, left : right + 1] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("size", [(1000, 700), (333, 900), (40, 31)])
def test_the_window_of_all_of_an_image_ends_exactly_at_its_edges(size):
    seen = image_window(SiglipImageProcessorPil(size={"height": 48, "width": 48}), size)
    assert seen == Window.whole(size)
