"""Where the tokens of pictures lie that are written row by row, against what the models themselves know of it."""

from __future__ import annotations

import pytest
import torch
from tests.support.blocks import pooled
from tests.support.families import tiny
from tests.support.pruning import forward, plan
from torch import Tensor

from vlm_pruner import UnsupportedModelError, prune
from vlm_pruner.adapters import Encoded, adapter_for
from vlm_pruner.adapters.rows import rows_with_ends


def test_ends_of_rows_lie_on_the_right_edge() -> None:
    layout = rows_with_ends(2, 3)
    assert (layout.tokens, layout.grid) == (8, (1, 2, 3))
    assert layout.position[:, 1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert layout.position[:, 2].tolist() == [0, 1, 2, 2.5, 0, 1, 2, 2.5]


def test_rows_of_emu3_are_those_that_its_codebook_writes() -> None:
    """The model puts the word that ends a row behind every row of codes."""
    family, model = tiny("emu3")
    inputs = family.inputs([family.prompt(3, 1)])
    with torch.no_grad():
        words = model.model.get_image_tokens(inputs["pixel_values"], inputs["image_sizes"])
    ends = words == model.config.vocabulary_map["<|extra_200|>"]
    with prune(model, plan((0.5, 2))) as session:
        forward(model, inputs)
    (record,) = session.images
    assert record.grid == (1, 4, 6)
    assert torch.equal(record.position[:, 2] == 5.5, ends)


def test_places_of_hunyuan_are_the_positions_that_it_gives() -> None:
    """Its last axes of positions are (column, row, picture); a word before and one behind a picture have none."""
    family, model = tiny("hunyuan_vl")
    prompt = family.prompt(2, 2)
    seen: list[Tensor] = []
    text = model.base_model.get_decoder()
    handle = text.register_forward_pre_hook(lambda m, a, k: seen.append(k["position_ids"]), with_kwargs=True)
    with prune(model, plan((0.5, 2))) as session:
        forward(model, family.inputs([prompt]))
    handle.remove()
    for record in session.images:
        column, row = seen[0][-3:-1, 0, prompt.places[record.index][1:-1]].float()
        assert torch.equal(record.position[1:-1, 1], row)
        assert torch.equal(record.position[1:-1, 2], column.clamp(max=record.grid[2] - 0.5))
        assert record.position[0].tolist() == [0, -0.5, -0.5]
        assert record.position[-1].tolist() == [0, record.grid[1] - 0.5, record.grid[2] - 0.5]


def test_places_of_molmo_are_where_its_patches_lie() -> None:
    """A token lies in the middle of the patches that it is pooled from; two crops of 4 x 4 patches side by side."""
    _, model = tiny("molmo2")
    _, _, payload = pooled(torch.Generator())
    encoded = Encoded({"image_grids": payload["image_grids"]}, (3, 16, 147), None)
    (layout,) = adapter_for("molmo2").image_layouts(model.config, encoded)
    patch = payload["image_token_pooling"]
    crop, y, x = patch // 16, patch % 16 // 4, patch % 4
    overview = crop == 0  # is as wide as both crops together
    x = torch.where(overview, 2 * x + 0.5, x + 4 * (crop - 1))
    middle = torch.stack([y.float().mean(1), x.float().mean(1)], 1)  # in patches
    torch.testing.assert_close(layout.position[:, 1:], (middle + 0.5) / 2 - 0.5)
    assert layout.grid == (1, 2, 4)


def test_videos_of_molmo_are_refused() -> None:
    _, model = tiny("molmo2")
    encoded = Encoded({"image_grids": torch.tensor([[2, 2, 0, 0]])}, (3, 16, 147), None)
    with pytest.raises(UnsupportedModelError, match=r"molmo2: its prompts mark a video like a picture"):
        adapter_for("molmo2").image_layouts(model.config, encoded)


def test_places_of_gemma_are_those_of_its_pooled_patches() -> None:
    """The model's own pooling averages the places of the patches: 2 x 2 of them, then token (y, x) is at twice that."""
    family, model = tiny("gemma4")
    inputs = family.inputs([family.prompt(2, 2)])
    with prune(model, plan((0.5, 2))) as session:
        forward(model, inputs)
    assert any(h != w for _, h, w in (record.grid for record in session.images))
    for record, place in zip(session.images, inputs["image_position_ids"], strict=True):
        coded = place.clamp(min=0)[None].float()  # padding adds nothing to what it is pooled into
        own, seen = model.model.vision_tower.pooler._avg_pool_by_positions(coded, place[None], 9)
        torch.testing.assert_close(record.position[:, [2, 1]], own[0, seen[0]] / 2 - 0.25)


def test_crops_of_step_lie_before_the_whole_picture() -> None:
    encoded = Encoded({"num_local_patches": torch.tensor([2, 0])}, (2, 3, 64, 64), [2 * 4 + 16, 16])
    _, model = tiny("step3p7")
    crops, whole = adapter_for("step3p7").image_layouts(model.config, encoded)
    assert (crops.grid, whole.grid) == ((3, 4, 4), (1, 4, 4))
    assert crops.position[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 16
    assert crops.position[:4, 1:].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert torch.equal(crops.position[8:, 1:], whole.position[:, 1:])


def test_dense_pages_of_granite_docling_have_finer_squares() -> None:
    _, model = tiny("granite_docling")
    coarse = Encoded({"tile_fine_mask": None}, (1, 2, 3, 32, 32), [32])
    fine = Encoded({"tile_fine_mask": torch.ones(1, dtype=torch.bool)}, (1, 2, 3, 32, 32), [128])
    adapter = adapter_for("granite_docling")
    assert [x.grid for x in adapter.image_layouts(model.config, coarse)] == [(1, 4, 4)] * 2
    assert [x.grid for x in adapter.image_layouts(model.config, fine)] == [(1, 8, 8)] * 2
