import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.cdpruner import relevance
from vlm_pruner.methods.cen_prune import centred, distinctiveness
from vlm_pruner.ops import dpp
from vlm_pruner.types import VisualTokens


def _cosine(rows):
    unit = rows / rows.norm(dim=1, keepdim=True)
    return unit @ unit.T


def _rows(n=15, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)) + 2


def test_distinctiveness_is_minus_the_mean_cosine_to_the_others():
    rows = _rows()
    g = -(_cosine(rows).fill_diagonal_(0).sum(1) / 14)
    torch.testing.assert_close(distinctiveness(rows), (g - g.min()) / (g.max() - g.min()), atol=1e-5, rtol=1e-5)


def test_directions_are_centred():
    rows = _rows()
    torch.testing.assert_close(centred(rows) @ centred(rows).T, _cosine(rows - rows.mean(0)), atol=1e-5, rtol=1e-5)


def test_distances_of_centred_directions_are_weighted_by_distinctiveness():
    rows = _rows()
    weight = distinctiveness(rows)
    distance = 1 - _cosine(rows - rows.mean(0))
    nearest = (distance + torch.eye(15) * 9).amin(1)
    chosen = [int(nearest.argmax())]
    for _ in range(7):
        score = {i: float(weight[i] * distance[i, chosen].min()) for i in range(15) if i not in chosen}
        chosen.append(max(score, key=score.__getitem__))
    assert create("cen-divprune").select(VisualTokens(rows), 8).order.tolist() == chosen


def test_relevance_and_distinctiveness_both_count():
    rows = _rows(30)
    words = torch.eye(6)[:2]
    kept = create("cen-cdpruner").select(VisualTokens(rows, words=words), 5).order.tolist()
    weight = relevance(rows, words.mean(0, keepdim=True))
    assert [kept] == dpp([centred(rows)], [weight * distinctiveness(rows)], 5).tolist()
    assert [kept] != dpp([centred(rows)], [weight], 5).tolist()
