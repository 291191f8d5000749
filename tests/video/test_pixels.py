"""Where a frame lies in a crop that is larger or smaller; test_stand_ins.py compares numbers with the stock ones."""

from __future__ import annotations

import pytest
import torch

from vlm_pruner.video.pixels import cropped


@pytest.mark.parametrize(
    ("size", "crop", "rows", "columns"),
    [
        ((2, 3), (7, 7), (2, 4), (2, 5)),  # black above, below and beside; of 5 rows the odd one below
        ((3, 2), (7, 7), (2, 5), (2, 4)),
        ((2, 9), (4, 4), (1, 3), (0, 4)),  # the middle of the columns
        ((9, 2), (4, 5), (0, 4), (1, 3)),
        ((4, 4), (4, 4), (0, 4), (0, 4)),
    ],
)
def test_a_frame_lies_in_the_middle_with_black_around_it(
    size: tuple[int, int], crop: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    frame = torch.arange(1, 1 + size[0] * size[1]).view(1, 1, *size).expand(2, 3, *size)
    found = cropped(frame, *crop)
    top, left = max(0, (size[0] - crop[0]) // 2), max(0, (size[1] - crop[1]) // 2)
    high, wide = rows[1] - rows[0], columns[1] - columns[0]
    expected = torch.zeros(2, 3, *crop, dtype=frame.dtype)
    expected[..., slice(*rows), slice(*columns)] = frame[..., top : top + high, left : left + wide]
    assert torch.equal(found, expected)
