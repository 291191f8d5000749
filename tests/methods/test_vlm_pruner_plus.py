import pytest
import torch
from tests.support.tokens import visual_tokens

from vlm_pruner import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.vlm_pruner_plus import cover
from vlm_pruner.types import VisualTokens


def rows(n: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_every_step_adds_the_most_coverage():
    unit = torch.nn.functional.normalize(rows(14).double(), dim=1)
    weight = torch.rand(14, generator=torch.Generator().manual_seed(1)).double()
    chosen: list[int] = []
    for _ in range(6):
        total = {i: float((unit @ unit[[*chosen, i]].T).clamp_min(0).amax(1) @ weight.sqrt()) for i in range(14)}
        chosen.append(max((i for i in total if i not in chosen), key=total.__getitem__))
    assert cover(unit.float(), weight.float(), 6, 0.5).tolist() == chosen


def test_emphasis_brings_in_what_stands_out():
    many, lone = torch.tensor([[1.0, 0.1]]).repeat(40, 1) + 0.3 * rows(40, 2), torch.tensor([[-1.0, 1.0]])
    tokens = VisualTokens(torch.cat([many, lone]), layer=2)
    assert create("vlm-pruner-plus", emphasis=2.0).select(tokens, 2).order[0] == 40
    assert create("vlm-pruner-plus", emphasis=0.0).select(tokens, 2).order[0] != 40


def test_every_token_is_folded_into_its_most_similar_survivor():
    tokens = visual_tokens()
    kept = create("vlm-pruner-plus").select(tokens, 9)
    unit = torch.nn.functional.normalize(tokens.features, dim=1)
    assert kept.source.tolist() == (unit @ unit[kept.index].T).argmax(1).tolist()
    weight = (unit * unit[kept.index][kept.source]).sum(1)
    for slot, index in enumerate(kept.index.tolist()):
        members = [i for i in (kept.source == slot).nonzero().flatten().tolist() if i != index]
        expected = tokens.features[index]
        if members and weight[members].sum() > 0:
            share = weight[members] / weight[members].sum()
            expected = 0.3 * expected + 0.7 * (share @ tokens.features[members])
        torch.testing.assert_close(kept.features[slot], expected)
    assert create("vlm-pruner-plus", merge=False).select(tokens, 9).features is None


@pytest.mark.parametrize("params", [{"emphasis": -1.0}, {"emphasis": float("nan")}, {"self_weight": 1.5}], ids=str)
def test_parameters_out_of_range(params):
    with pytest.raises(PlanError, match=next(iter(params))):
        create("vlm-pruner-plus", **params)
