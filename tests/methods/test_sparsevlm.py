import math

import pytest
import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.sparsevlm import cluster, raters, recycled_count
from vlm_pruner.types import VisualTokens


def _tokens(n=40, t=6, heads=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    attention = torch.rand(heads, t, n, generator=g)
    rows, words, embeddings = (torch.randn(s, 8, generator=g) for s in (n, t, n))
    return VisualTokens(rows, text_attention=attention, words=words, embeddings=embeddings, layer=3)


def test_raters_are_the_words_above_average():
    image = torch.tensor([[4.0, 0.0], [4.0, 0.1]])
    words = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert raters(image, words).tolist() == [1, 0, 0]


def test_all_words_rate_where_none_stands_out():
    assert raters(torch.ones(3, 2), torch.ones(4, 2)).tolist() == [1, 1, 1, 1]


def test_kept_are_the_best_of_the_raters_attention():
    tokens = _tokens()
    rater = raters(tokens.embeddings, tokens.words).bool()
    assert 0 < rater.sum() < len(rater)
    score = tokens.text_attention.mean(0)[rater].mean(0)
    kept = create("sparsevlm", recycle=False).select(tokens, 10).order
    assert kept.tolist() == score.argsort(descending=True).tolist()[:10]


@pytest.mark.parametrize(("dropped", "expected"), [(276, (83, 9)), (510, (154, 16)), (0, (1, 1))])
def test_recycled_count_as_released(dropped, expected):
    assert recycled_count(dropped) == expected


def test_clusters_against_loops():
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    k, m = 4, 30
    d = [[math.dist(a, b) / math.sqrt(5) for b in rows.tolist()] for a in rows.tolist()]
    density = [math.exp(-sum(x * x for x in sorted(row)[:k]) / k) for row in d]
    peak = [min([d[i][j] for j in range(m) if density[j] > density[i]], default=max(map(max, d))) for i in range(m)]
    expected = sorted(range(m), key=lambda i: -density[i] * peak[i])[:k]
    centres, slot = cluster(rows, k)
    assert centres.tolist() == expected
    nearest = [min(range(k), key=lambda c: d[i][expected[c]]) for i in range(m)]
    assert slot.tolist() == nearest


def test_recycled_rows_are_cluster_means():
    tokens = _tokens(n=200)
    selection = create("sparsevlm").select(tokens, 20).validate(200, 20)
    plain = create("sparsevlm", recycle=False).select(tokens, 200).order
    clusters = next(c for c in range(20) if c == recycled_count(180 + c)[1])
    survivors = plain[: 20 - clusters]
    torch.testing.assert_close(
        selection.features[torch.searchsorted(selection.index, survivors.sort().values)],
        tokens.features[survivors.sort().values],
    )
    for slot in range(20):
        members = (selection.source == slot).nonzero().flatten()
        torch.testing.assert_close(selection.features[slot], tokens.features[members].mean(0))
    pooled = recycled_count(180 + clusters)[0]
    assert (selection.source >= 0).sum() == 20 - clusters + pooled
    assert set(plain[: 20 - clusters + pooled].tolist()) == set((selection.source >= 0).nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("name", "keep", "expected"),
    [
        ("sparsevlm", 192, [(309, 3), (204, 7), (113, 16)]),
        ("sparsevlm", 64, [(82, 3), (32, 7), (18, 16)]),
        ("sparsevlm-plus", 64, [(66, 3), (34, 7), (20, 16)]),
        ("sparsevlm-plus", 96, [(246, 3), (54, 7), (28, 16)]),
        ("sparsevlm-plus", 128, [(238, 3), (108, 7), (60, 16)]),
        ("sparsevlm-plus", 192, [(300, 3), (200, 7), (118, 16)]),
    ],
)
def test_published_schedules(name, keep, expected):
    stages = create(name).stages(keep, 32)
    assert [(k, layer) for _, k, layer in stages] == expected
    shares = [k for _, k, _ in create(name).stages(keep / 576, 32)]
    assert shares == pytest.approx([k / 576 for k, _ in expected])


@pytest.mark.parametrize(("keep", "expected"), [(96, [238, 48, 26]), (128, [303, 110, 36])])
def test_published_survivors_without_clusters(keep, expected):
    assert [k for _, k, _ in create("sparsevlm", recycle=False).stages(keep, 32)] == expected


def test_plus_takes_the_heads_that_see_most_of_the_image():
    tokens = _tokens(heads=2)
    weak = tokens.text_attention * torch.tensor([1.0, 0.01])[:, None, None]
    weak[1, :, 3] = 0.5  # the weaker head's favourite
    tokens = VisualTokens(tokens.features, text_attention=weak, words=tokens.words, embeddings=tokens.embeddings)
    rater = raters(tokens.embeddings, tokens.words).bool()
    expected = weak[0][rater].mean(0).argsort(descending=True)[:5]
    assert create("sparsevlm-plus").select(tokens, 5).order.tolist() == expected.tolist()
