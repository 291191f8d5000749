import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.errors import MissingSignalError
from vlm_pruner.methods import create
from vlm_pruner.methods.visionzip import visionzip
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("visionzip"), ids=case_id)
def test_golden(case):
    tensors, params, expected = build(case), case["params"], case["expected"]
    rows = tensors["hidden"][1:]
    kept, _, merged, _ = visionzip(rows, tensors["metric"][1:], tensors["attention"].sum(0), **params)
    assert kept.tolist() == expected["kept"]
    output = torch.cat([tensors["hidden"][:1], rows[kept], merged])  # the released code puts the CLS row first
    assert list(output.shape) == expected["features_shape"]
    torch.testing.assert_close(output.sum(1), torch.tensor(expected["features_row_sum"]), atol=1e-3, rtol=0)


def _tokens(n=20, cls=True):
    g = torch.Generator().manual_seed(0)
    attention = torch.rand(2, n, generator=g)
    vision = VisionSignals(
        keys=torch.randn(2, n, 4, generator=g),
        cls_attention=attention if cls else None,
        attention=torch.rand(3, n, generator=g),
    )
    return VisualTokens(torch.randn(n, 6, generator=g), vision=vision)


def test_contextual_tokens_stand_at_their_targets():
    tokens = _tokens()
    selection = create("visionzip", contextual=0.5).select(tokens, 8).validate(20, 8)
    dominant = tokens.vision.cls_attention.mean(0).argsort(descending=True)[:4].sort().values
    rest = [i for i in range(20) if i not in dominant.tolist()]
    targets = rest[:16:4]
    assert selection.index.tolist() == sorted(dominant.tolist() + targets)
    key = torch.nn.functional.normalize(tokens.vision.keys.mean(0), dim=1)
    for target in targets:
        members = [i for i in rest if i not in targets and (key[i] @ key[targets].T).argmax() == targets.index(target)]
        expected = tokens.features[target] + (tokens.features[members].mean(0) if members else 0)
        slot = selection.index.tolist().index(target)
        torch.testing.assert_close(selection.features[slot], expected)
        assert sorted((selection.source == slot).nonzero().flatten().tolist()) == sorted([*members, target])


def test_a_tower_without_cls_gives_the_attention_received():
    tokens = _tokens(cls=False)
    selection = create("visionzip", contextual=0.0).select(tokens, 5)
    assert selection.order.tolist() == tokens.vision.attention[-1].argsort(descending=True)[:5].tolist()


def test_with_neither_it_says_so():
    vision = VisionSignals(keys=torch.randn(1, 4, 2))
    with pytest.raises(MissingSignalError, match=r"visionzip needs CLS_ATTENTION .* VISION_ATTENTION"):
        create("visionzip").select(VisualTokens(torch.randn(4, 2), vision=vision), 2)
