import dataclasses

import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases
from tests.support.tokens import visual_tokens

from vlm_pruner.methods import create
from vlm_pruner.methods.prunesid import _quotas, _rounded, dynamic_count, prunesid, redundancy
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("prunesid"), ids=case_id)
def test_golden(case):
    tensors, expected = build(case), case["expected"]
    rows = tensors["hidden"][1:]
    tokens = VisualTokens(rows, vision=VisionSignals(features=rows, cls_attention=tensors["attention"]))
    selection = create("prunesid").select(tokens, case["keep"])
    assert selection.index.tolist() == expected["kept"]
    assert selection.order.tolist() == expected["order"]


def _by_loops(rows, score, keep):
    """The rule step by step, with the singular value decomposition of the matrix itself."""
    n, whole = len(rows), keep + 1
    z = rows.double().sigmoid()
    directions = torch.linalg.svd(z - z.mean(1, keepdim=True)).U[:, : max(1, whole // 4)]
    group = directions.abs().argmax(1).tolist()
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    cosine = unit @ unit.T
    limit = whole / 32 * float(cosine[torch.triu_indices(n, n, 1).unbind()].mean())
    lines, survivors = [], []
    for g in range(directions.shape[1]):
        members = sorted((i for i in range(n) if group[i] == g), key=lambda i: (-score[i], i))
        alive = []
        for i in members:
            if all(cosine[i, j] <= limit for j in alive):
                alive.append(i)
        lines.append(alive + [i for i in members if i not in alive])
        survivors.append(len(alive))
    high = [min(5 * -(-whole // 64), len(m), v) for m, v in zip(lines, survivors, strict=True)]
    while sum(high) < whole:
        high = [min(h + 1, len(m)) for h, m in zip(high, lines, strict=True)]
    low = [min(1, len(m)) for m in lines]
    reached = [round(sum(survivors[: g + 1]) * (keep - sum(low)) / sum(survivors)) for g in range(len(lines))]
    quota = [min(c - p + b, h) for c, p, b, h in zip(reached, [0, *reached], low, high, strict=False)]
    for g in sorted(range(len(lines)), key=lambda g: (-survivors[g], g)):
        quota[g] += min(high[g] - quota[g], keep - sum(quota))
    return [i for m, q in zip(lines, quota, strict=True) for i in m[:q]]


@pytest.mark.parametrize(("keep", "likeness"), [(5, 2.0), (11, 2.0), (23, 1.0), (40, 0.0)])
def test_against_loops(keep, likeness):
    g = torch.Generator().manual_seed(keep)
    rows = torch.randn(60, 16, generator=g) + likeness * torch.randn(16, generator=g)
    score = torch.rand(60, generator=g)
    assert prunesid(rows, score, keep).tolist() == _by_loops(rows, score.tolist(), keep)


def test_equal_tokens_go_by_attention():
    tokens = visual_tokens(flat=True)
    vision = dataclasses.replace(tokens.vision, cls_attention=visual_tokens().vision.cls_attention)
    for keep in (1, 5, 20):
        order = create("prunesid").select(dataclasses.replace(tokens, vision=vision), keep).order
        assert order.tolist() == vision.cls_attention.mean(0).argsort(descending=True)[:keep].tolist()


def test_a_tower_without_cls_goes_by_the_loadings():
    tokens = visual_tokens()
    bare = VisualTokens(tokens.features)
    order = create("prunesid").select(bare, 12).order
    assert order.tolist() == prunesid(tokens.features, None, 12).tolist()
    tower = dataclasses.replace(tokens.vision, cls_attention=None)
    assert create("prunesid").select(dataclasses.replace(tokens, vision=tower), 12).order.tolist() == order.tolist()


def test_quotas_add_up():
    g = torch.Generator().manual_seed(0)
    for keep in range(1, 61):
        group = torch.randint(max(1, (keep + 1) // 4), (60,), generator=g)
        size = torch.bincount(group)
        survivors = (size * torch.rand(len(size), generator=g)).ceil().long()
        quota = _quotas(size, survivors, 60, keep + 1, keep)
        assert int(quota.sum()) == keep
        assert bool(((quota >= 0) & (quota <= size)).all())


def test_halves_round_to_the_even_number():
    part = torch.arange(12)
    assert _rounded(part, torch.tensor(2)).tolist() == [round(int(p) / 2) for p in part]
    assert _rounded(part, torch.tensor(5)).tolist() == [round(int(p) / 5) for p in part]


def test_a_varied_image_gets_more():
    g = torch.Generator().manual_seed(1)
    rows = torch.randn(30, 8, generator=g)
    alike = rows + 3 * torch.randn(8, generator=g)
    pairs = torch.triu_indices(30, 30, 1)
    cosine = torch.nn.functional.cosine_similarity(rows[pairs[0]].double(), rows[pairs[1]].double())
    torch.testing.assert_close(redundancy(rows), cosine.mean())
    reference = float(1 - redundancy(rows))
    assert int(dynamic_count(rows, 10, reference)) == 10
    assert 1 <= int(dynamic_count(alike, 10, reference)) < 10
    assert int(dynamic_count(rows, 10, reference / 100)) == 30
