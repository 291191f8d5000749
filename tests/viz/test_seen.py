"""Drawn rectangles against what models see: paint a cell's pixels, and look whose features change.

Every family of `vlm-pruner models` that has a processor in transformers, with that processor.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.processors import EYES, Look
from tests.support.vision import needs_torchvision
from torch import Tensor

from vlm_pruner.adapters import families
from vlm_pruner.viz import Layout, picture_layout, seen_windows
from vlm_pruner.viz.patches import pixels_of

pytestmark = needs_torchvision

SIZES = [(300, 160), (150, 330)]
PAINTED = 5  # cells of every panel
WITHOUT = {  # families without a processor of their own in transformers that these tests could load
    "glmga": "as glm4v",
    "pp_chart2table": "as got_ocr2",
    "shieldgemma2": "as gemma3",
}


@functools.cache
def look(name: str) -> Look:
    return Look(name)


def picture(size: tuple[int, int]) -> Image.Image:
    """Soft spots of grey."""
    spots = np.random.default_rng(1).integers(90, 160, (size[1] // 10 + 1, size[0] // 10 + 1, 3)).astype(np.uint8)
    return Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC)


def drawn(family: Look, image: Image.Image) -> Layout:
    records = family.records(image)
    windows = seen_windows(lambda one: pixels_of(family.made(one), records[0].grid), image.size)
    return picture_layout(windows, image.size, records)


def blocks(family: Look, layout: Layout, image: Image.Image) -> Tensor:
    """[n, d] the pixels behind every cell of a single plane; zeros for tokens without a place."""
    (pixels,) = pixels_of(family.made(image))
    (panel,) = layout.panels
    three, height, width = pixels.shape[-3:]
    down, across = height // panel.rows, width // panel.columns
    cells = pixels.view(three, panel.rows, down, panel.columns, across).permute(1, 3, 0, 2, 4).flatten(2)
    shown = torch.zeros(len(layout), cells.shape[-1])
    there = layout.panel == 0
    shown[there] = cells[layout.cell[there, 0], layout.cell[there, 1]]
    return shown


@pytest.mark.parametrize("size", SIZES, ids=["wide", "high"])
@pytest.mark.parametrize("name", EYES)
def test_the_cell_that_is_painted_is_the_cell_that_changes(name: str, size: tuple[int, int]) -> None:
    family, image = look(name), picture(size)
    layout = drawn(family, image)
    shown = functools.partial(blocks, family, layout) if family.eye.words else family.features
    before = shown(image)
    assert len(layout) == len(before)
    assert all(panel.shown for panel in layout.panels)
    for number in range(len(layout.panels)):
        own = (layout.panel == number).nonzero().flatten()
        tried = 0
        for token in own[torch.randperm(len(own), generator=torch.Generator().manual_seed(number))].tolist():
            box = clipped(layout.boxes[token], size)
            if tried == PAINTED or box is None:
                continue
            tried += 1
            painted = image.copy()
            painted.paste((255, 0, 0) if token % 2 else (0, 0, 255), box)
            changed = (shown(painted) - before).norm(dim=1)[own]
            found = layout.boxes[own[changed.argmax()]]
            patch = found[2:] - found[:2]
            off = (found[:2] + found[2:] - layout.boxes[token][:2] - layout.boxes[token][2:]).abs() / 2
            assert (off <= 1.01 * patch).all(), f"token {token}: painted {box}, seen in {found.tolist()}"
        assert tried


def clipped(box: Tensor, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The part of a rectangle that is in the image; None if that is less than half of it."""
    left, top, right, bottom = box.tolist()
    inside = max(0, round(left)), max(0, round(top)), min(size[0], round(right)), min(size[1], round(bottom))
    if inside[2] - inside[0] < 0.6 * (right - left) or inside[3] - inside[1] < 0.6 * (bottom - top):
        return None
    return inside


def test_no_family_is_left_out() -> None:
    tried = {EYES[name].described(name).model_type for name in EYES}
    assert tried | set(WITHOUT) >= set(families())
