import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.methods.dart import dart, dart_released
from vlm_pruner.types import VisualTokens


def _parts(case):
    tensors, n = build(case), case["grid"][0] * case["grid"][1]
    start, h, k = tensors["start"], tensors["hidden"], tensors["keys"]
    return h[start : start + n], k[:, start : start + n], h[start + n :], k[:, start + n :], start


@pytest.mark.parametrize("case", cases("dart"), ids=case_id)
def test_golden_of_the_released_order(case):
    kept = dart_released(*_parts(case), case["keep"])
    assert sorted(kept.tolist()) == case["expected"]["kept"]


@pytest.mark.parametrize("case", cases("dart"), ids=case_id)
def test_exact_count_stays_close_to_the_released_set(case):
    features, keys, text, text_keys, _ = _parts(case)
    tokens = VisualTokens(features, keys=keys, text=text, text_keys=text_keys, layer=2)
    kept = create("dart").select(tokens, case["keep"]).validate(len(features), case["keep"]).index.tolist()
    assert len(set(kept) & set(case["expected"]["kept"])) > 0.8 * case["keep"]


def test_pivots_then_the_least_similar_of_each():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.1], [0.5, -0.9]])
    keys = torch.tensor([[[9.0], [1.0], [1.0], [1.0], [1.0]]])
    text, text_keys = torch.tensor([[0.0, 1.0]]), torch.ones(1, 1, 1)
    # pivot 0; two of the other three are its least similar (3, then 2), one is the text's (4)
    assert dart(features, keys, text, text_keys, 4, pivots=1).tolist() == [0, 3, 2, 4]


@pytest.mark.parametrize(("n", "keep"), [(3, 2), (5, 5), (9, 3), (9, 8)])
def test_exact_in_small_images_and_without_text(n, keep):
    generator = torch.Generator().manual_seed(n)
    for t in (0, 3):
        rows = [torch.randn(s, generator=generator) for s in ((n, 6), (2, n, 3), (t, 6), (2, t, 3))]
        assert len(set(dart(*rows, keep).tolist())) == keep
