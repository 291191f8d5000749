"""VLM-Pruner against the released code's selections."""

import math

import pytest
import torch
from tests.support import golden
from tests.support.ops import DEVICE, READS_NOTHING, numba, running, triton
from tests.support.sync import no_undeclared_reads
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import MissingSignalError, NotFiniteError, PlanError
from vlm_pruner.methods.vlm_pruner import VLMPruner, geometry
from vlm_pruner.profiling.timing import peak_bytes
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("backend", ["naive", "torch", "unread", numba])
@pytest.mark.parametrize("case", golden.cases("vlm-pruner"), ids=golden.case_id)
def test_golden(case, backend):
    chosen_as_released(case, backend)


@pytest.mark.parametrize("backend", [triton])
@pytest.mark.parametrize("case", golden.for_kernels("vlm-pruner"), ids=golden.case_id)
def test_golden_kernels(case, backend):
    chosen_as_released(case, backend)


def chosen_as_released(case, backend):
    features, keys, grid = golden.vlm_pruner_inputs(case)
    method = VLMPruner(fill=False, **(case.get("params") or {}))
    with running(backend):
        selection = method.select(VisualTokens(features.to(DEVICE), keys.to(DEVICE), grid), case["keep"])
    expected = case["expected"]
    assert selection.index.tolist() == expected["kept"]
    assert selection.order[: len(expected["pivots"])].tolist() == expected["pivots"]
    torch.testing.assert_close(
        selection.features.cpu().double().sum(1), torch.tensor(expected["merged_row_sum"]).double(), atol=1e-2, rtol=0
    )
    torch.testing.assert_close(
        selection.features.cpu().double().square().sum(1),
        torch.tensor(expected["merged_row_sqsum"]).double(),
        atol=1e-2,
        rtol=1e-4,
    )


def test_a_flat_image_stops_early_or_fills_the_budget():
    case = next(c for c in golden.cases("vlm-pruner") if c["recipe"] == "flat")
    tokens = VisualTokens(*golden.vlm_pruner_inputs(case))
    assert len(VLMPruner(fill=False).select(tokens, 64)) == 4
    assert len(VLMPruner(fill=True).select(tokens, 64)) == 64


@pytest.mark.parametrize("backend", READS_NOTHING)
def test_a_batch_is_selected_without_reading_a_value(backend, monkeypatch):
    """Not even a declared one: what is to be captured in a CUDA graph must not wait for its device."""
    images = [visual_tokens(seed=seed) for seed in range(3)]
    images = [VisualTokens(t.features.to(DEVICE), t.keys.to(DEVICE), t.grid) for t in images]
    alone = [VLMPruner(channels=16).select(image, 12).index.tolist() for image in images]
    with running(backend):
        VLMPruner(channels=16).select_batch(images, [12] * 3)  # tables that depend on shapes alone are built once
        monkeypatch.setattr("tests.support.sync.in_declared_sync", lambda: False)
        with no_undeclared_reads():
            together = VLMPruner(channels=16).select_batch(images, [12] * 3)
    assert [selection.index.tolist() for selection in together] == alone


@pytest.mark.parametrize("keep", [64, 900])
def test_memory_grows_with_tokens_times_channels(keep):
    """A copy of the features or of the keys alone would be as much as all that is allowed."""
    n, d, q = 8192, 1024, 256
    generator = torch.Generator().manual_seed(0)
    features, keys = torch.randn(n, d, generator=generator), torch.randn(8, n, d // 8, generator=generator)
    tokens = VisualTokens(features, keys, (1, 64, 128))
    assert peak_bytes(lambda: VLMPruner(channels=q).select(tokens, keep), tokens.device) < 4 * n * q * 4


def test_parameters_outside_their_range_are_refused():
    for wrong in ({"pivots": 0}, {"channels": 0}, {"self_weight": 1.5}, {"token_batch": 0}, {"threshold_step": 0.0}):
        with pytest.raises(PlanError, match=next(iter(wrong))):
            VLMPruner(**wrong)


def test_a_kept_token_represents_itself_beside_an_equal_one():
    tokens = visual_tokens(flat=True)
    selection = VLMPruner().select(tokens, 9)
    assert selection.source[selection.index].tolist() == list(range(9))


@pytest.mark.parametrize("grid", [(1, 6, 7), (3, 4, 5)], ids=str)
def test_given_places_of_a_whole_raster_span_the_box_of_their_grid(grid):
    """A diagonal reaches from one end of the first token to the other end of the last one."""
    t, h, w = grid
    bare = VisualTokens(torch.zeros(t * h * w, 1), grid=grid)
    place, diagonal = geometry(VisualTokens(bare.features, position=bare.coordinates()), 2.0)
    torch.testing.assert_close(diagonal, torch.tensor(math.hypot(h, w, 2.0 * (t - 1))))
    torch.testing.assert_close(geometry(bare, 2.0)[1], diagonal)
    torch.testing.assert_close(place[:, 1:], bare.coordinates()[:, 1:])
    torch.testing.assert_close(place[:, 0], 2.0 * bare.coordinates()[:, 0])


def test_before_the_language_model_pivots_are_found_among_the_centred_features():
    tokens = visual_tokens()
    bare = VisualTokens(tokens.features, grid=tokens.grid)
    found = VLMPruner().select(bare, 12)
    centred = tokens.features - tokens.features.mean(0)
    space = torch.nn.functional.normalize(centred)
    by_hand = VLMPruner().select(VisualTokens(tokens.features, space[None], tokens.grid), 12)
    assert found.order.tolist() == by_hand.order.tolist()
    assert torch.equal(found.features, by_hand.features)
    paper = VLMPruner().select(VisualTokens(tokens.features, tokens.keys, tokens.grid), 12)
    assert found.order.tolist() != paper.order.tolist()
    with pytest.raises(MissingSignalError, match=r"vlm-pruner needs KEYS \(keys\), which .* at decoder layer 3"):
        VLMPruner().select(VisualTokens(tokens.features, grid=tokens.grid, layer=3), 12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_before_the_language_model_too_what_is_not_finite_is_refused(value):
    images = [VisualTokens(visual_tokens(seed=seed).features, grid=(1, 6, 7)) for seed in range(2)]
    images[1].features[17, 3] = value
    with pytest.raises(NotFiniteError, match="picture 2 of 2 has features"):
        VLMPruner().select_batch(images, [12, 12])


@pytest.mark.parametrize("keep", [1, 3, 42])
def test_before_the_language_model_equal_and_huge_features_are_no_matter(keep):
    for rows in (torch.ones(42, 48), torch.full((42, 48), 1e30), visual_tokens().features * 1e30):
        VLMPruner(merge=False).select(VisualTokens(rows, grid=(1, 6, 7)), keep).validate(42, keep)


def test_places_of_a_video_lie_in_time_as_well():
    place, diagonal = geometry(VisualTokens(torch.zeros(12, 1), grid=(2, 2, 3)), 1.5)
    expected = [[1.5 * frame, y, x] for frame in range(2) for y in range(2) for x in range(3)]
    assert place.tolist() == expected
    assert diagonal.item() == pytest.approx((4 + 9 + 1.5**2) ** 0.5)
    place, diagonal = geometry(VisualTokens(torch.zeros(6, 1), grid=(1, 2, 3)), 1.5)
    assert place.tolist() == [[y, x] for y in range(2) for x in range(3)]
    assert diagonal.item() == pytest.approx(13**0.5)
