import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.sparsevlm import raters
from vlm_pruner.methods.tops import tops
from vlm_pruner.types import VisionSignals, VisualTokens


def test_against_loops():
    g = torch.Generator().manual_seed(0)
    rows, relevance = torch.randn(14, 5, generator=g), torch.rand(14, generator=g)
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosine = unit @ unit.T
    chosen = [int(relevance.argmax())]
    for _ in range(6):
        free = [i for i in range(14) if i not in chosen]
        distance = {i: float(1 - cosine[i, chosen].max()) for i in free}
        gain = {i: sum(max(0.0, float(cosine[i, j] - cosine[j, chosen].max())) for j in free) for i in free}
        parts = ({i: float(relevance[i]) for i in free}, distance, gain)
        means = [sum(p.values()) / len(free) for p in parts]
        score = {i: parts[0][i] / means[0] + 0.5 * parts[1][i] / means[1] + 0.8 * parts[2][i] / means[2] for i in free}
        chosen.append(max(score, key=score.__getitem__))
    assert tops(rows, relevance, 7, alpha=0.5, coverage=0.8).tolist() == chosen


def test_plan_and_both_kinds_of_relevance():
    stages = create("tops").stages(64, 32)
    assert [(m.name, k, layer) for m, k, layer in stages] == [
        ("tops", 128, None), ("tops-text", 64, 12), ("tops-text", 16, 24)]  # fmt: skip
    g = torch.Generator().manual_seed(1)
    rows, text = torch.randn(20, 6, generator=g), torch.randn(4, 6, generator=g)
    cls, attention = torch.rand(2, 20, generator=g), torch.rand(3, 4, 20, generator=g)
    before = VisualTokens(rows, vision=VisionSignals(cls_attention=cls))
    assert create("tops").select(before, 5).order.tolist() == tops(rows, cls.mean(0), 5, 0.5, 1.0).tolist()
    inside = VisualTokens(rows, text=text, text_attention=attention, layer=12)
    rater = raters(rows, text).bool()
    expected = tops(rows, attention.mean(0)[rater].mean(0), 5, 0.5, 1.0)
    assert create("tops-text").select(inside, 5).order.tolist() == expected.tolist()
