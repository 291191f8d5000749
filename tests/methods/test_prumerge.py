import pytest
import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.prumerge import enrich, released
from vlm_pruner.types import VisionSignals, VisualTokens


def _tokens(n=30):
    g = torch.Generator().manual_seed(0)
    attention = torch.randn(2, n, generator=g).mul(3).softmax(-1)
    vision = VisionSignals(keys=torch.randn(2, n, 4, generator=g), cls_attention=attention)
    return VisualTokens(torch.randn(n, 6, generator=g), vision=vision)


@pytest.mark.parametrize("mean", [True, False])
def test_enrichment_against_loops(mean):
    tokens = _tokens()
    key = torch.nn.functional.normalize(tokens.vision.keys.transpose(0, 1).flatten(1), dim=1)
    score, index = tokens.vision.cls_attention.mean(0), torch.tensor([4, 11, 20])
    out = enrich(tokens.features, key, score, index, neighbours=5, mean=mean)
    for row, i in zip(out, index.tolist(), strict=True):
        near = sorted((j for j in range(30) if j != i), key=lambda j: -float(key[i] @ key[j]))[:5]
        total = sum(score[j] * tokens.features[j] for j in near)
        expected = (
            (total + score[i] * tokens.features[i]) / score[[*near, i]].sum() if mean else total + tokens.features[i]
        )
        torch.testing.assert_close(row, expected)


def test_prumerge_keeps_the_best_and_one_mean_of_the_rest():
    tokens = _tokens()
    score = tokens.vision.cls_attention.mean(0)
    order = score.argsort(descending=True)
    selection = create("prumerge").select(tokens, 6).validate(30, 6)
    assert selection.order.tolist() == order[:6].tolist()
    weight = score[order[5:]]
    slot = selection.index.tolist().index(order[5].item())
    torch.testing.assert_close(selection.features[slot], weight @ tokens.features[order[5:]] / weight.sum())
    assert sorted((selection.source == slot).nonzero().flatten().tolist()) == sorted(order[5:].tolist())


def test_plus_spreads_half_of_the_budget():
    tokens = _tokens()
    order = tokens.vision.cls_attention.mean(0).argsort(descending=True)
    selection = create("prumerge-plus").select(tokens, 10).validate(30, 10)
    best, spread = order[:4].tolist(), selection.order[4:9].tolist()
    assert selection.order[:4].tolist() == best
    rest = [i for i in range(30) if i not in best]
    assert spread == [rest[s * 26 // 5] for s in range(5)]


def test_released_count_follows_from_the_outliers():
    score = torch.full((100,), 0.01)
    score[[7, 50]] = torch.tensor([0.5, 0.9])
    assert released(score, plus=False).tolist() == [50, 7]
    step = int(int(1 / 0.02) / 3)
    assert released(score, plus=True).tolist() == [50, 7, *range(0, 99, step)]


def test_with_everything_kept_nothing_is_merged():
    for name in ("prumerge", "prumerge-plus"):
        selection = create(name).select(_tokens(), 30)
        assert selection.features is None
        assert selection.index.tolist() == list(range(30))
