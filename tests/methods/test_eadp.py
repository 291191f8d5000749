import math

import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.eadp import eadp, smooth, word_relevance
from vlm_pruner.types import VisualTokens


def _unit(x):
    return [v / math.sqrt(sum(u * u for u in x)) for v in x]


def _cos(a, b):
    return sum(x * y for x, y in zip(_unit(a), _unit(b), strict=True))


def test_relevance_against_loops():
    g = torch.Generator().manual_seed(0)
    image, pooled, words = (torch.randn(s, generator=g).double() for s in ((6, 4), (2, 4), (2, 10, 4)))
    expected = [0.0] * 6
    for m in range(2):
        each = [[-_cos(i, w) for w in words[m].tolist()] for i in image.tolist()]  # [n][l]
        entropy = []
        for position in range(10):
            e = [math.exp(100 * (row[position] - max(r[position] for r in each))) for row in each]
            entropy.append(-sum(x / sum(e) * math.log(x / sum(e) + 1e-12) for x in e))
        sharp = sorted(range(10), key=entropy.__getitem__)[:2]  # int(0.2 * 10)
        weight = [math.exp(-(entropy[p] - entropy[sharp[0]]) / (0.01 + 1e-6)) for p in sharp]
        for n in range(6):
            local = sum(w * each[n][p] for w, p in zip(weight, sharp, strict=True)) / sum(weight)
            expected[n] += (0.5 * -_cos(image[n].tolist(), pooled[m].tolist()) + 0.5 * local) / 2
    torch.testing.assert_close(word_relevance(image, pooled, words), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_smoothing_is_a_normalised_gaussian_per_frame():
    spike = torch.zeros(2, 5, 5)
    spike[0, 2, 2] = 1.0
    out = smooth(spike.flatten(), (2, 5, 5)).view(2, 5, 5)
    assert out[1].abs().max() == 0
    assert torch.isclose(out.sum(), torch.tensor(1.0))
    assert math.isclose(out[0, 2, 3] / out[0, 2, 2], math.exp(-0.5), rel_tol=1e-5)
    assert math.isclose(out[0, 1, 3] / out[0, 2, 2], math.exp(-1.0), rel_tol=1e-5)
    assert torch.equal(smooth(spike.flatten(), (1, 1, 50)), spike.flatten())


def test_weighted_coverage_against_loops():
    g = torch.Generator().manual_seed(1)
    rows, weight = torch.randn(12, 5, generator=g), torch.rand(12, generator=g)
    cover = [[0.5 * (1 + _cos(a, b)) for b in rows.tolist()] for a in rows.tolist()]
    chosen: list[int] = []
    for _ in range(6):
        reached = [max([cover[i][j] for i in chosen], default=0.0) for j in range(12)]
        gain = [sum(float(w) * max(0.0, c - r) for w, c, r in zip(weight, row, reached, strict=True)) for row in cover]
        chosen.append(max((i for i in range(12) if i not in chosen), key=lambda i: gain[i]))
    assert eadp(rows, weight, 6).tolist() == chosen


def test_shared_space_and_its_substitute():
    g = torch.Generator().manual_seed(2)
    features, words = torch.randn(20, 6, generator=g), torch.randn(5, 6, generator=g)
    pooled = words.mean(0, keepdim=True)
    by_words = VisualTokens(features, words=words, grid=(1, 4, 5))
    same = VisualTokens(features, grid=(1, 4, 5), image_embeds=features, text_embeds=pooled, word_embeds=words[None])
    pooled_only = VisualTokens(features, grid=(1, 4, 5), image_embeds=features, text_embeds=pooled)
    kept = [create("eadp", beta=4.0).select(t, 5).order.tolist() for t in (by_words, same, pooled_only)]
    assert kept[0] == kept[1] != kept[2]
    assert create("eadp", beta=4.0, negate=False).select(by_words, 5).order.tolist() != kept[0]
