import pytest
import torch
from tests.support.families import tiny
from tests.support.tokens import visual_tokens

from vlm_pruner import prune
from vlm_pruner.errors import MissingSignalError, PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.mmr import mmr
from vlm_pruner.types import Signal, VisualTokens


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_against_loops(balance):
    g = torch.Generator().manual_seed(0)
    rows, importance = torch.randn(15, 6, generator=g), torch.randn(15, generator=g)
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    cosine, score = unit @ unit.T, (importance - importance.min()) / (importance.max() - importance.min())
    chosen = [int(score.argmax())] if balance else [0]  # without a weight all are equally important
    for _ in range(7):
        left = [i for i in range(15) if i not in chosen]
        value = {i: balance * float(score[i]) - (1 - balance) * float(cosine[i, chosen].max()) for i in left}
        chosen.append(max(value, key=value.__getitem__))
    assert mmr(rows, importance, 8, balance).tolist() == chosen


def test_importance_alone_is_its_ranking():
    tokens = visual_tokens()
    cls = tokens.vision.cls_attention.mean(0).argsort(descending=True)
    assert create("mmr", balance=1.0).select(tokens, 9).order.tolist() == cls[:9].tolist()


def test_each_importance_reads_its_own():
    tokens = visual_tokens()
    expected = {
        "salience": tokens.vision.cls_attention.mean(0),
        "norm": tokens.features.norm(dim=1),
        "attention": tokens.attention.mean(0),
    }
    for importance, score in expected.items():
        order = create("mmr", importance=importance).select(tokens, 9).order
        assert order.tolist() == mmr(tokens.features, score, 9).tolist()
    bare = VisualTokens(tokens.features)
    assert len(create("mmr", importance="norm").select(bare, 9)) == 9
    for importance in ("salience", "attention"):
        with pytest.raises(MissingSignalError, match="mmr needs"):
            create("mmr", importance=importance).select(bare, 9)


def test_equal_tokens_go_by_index():
    assert mmr(torch.ones(9, 4), torch.ones(9), 4).tolist() == [0, 1, 2, 3]
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert mmr(rows, torch.ones(4), 3).tolist() == [0, 1, 2]


def test_wrong_parameters_are_refused():
    with pytest.raises(PlanError, match="did you mean 'salience'"):
        create("mmr", importance="saliency")
    with pytest.raises(PlanError, match="balance=2"):
        create("mmr", balance=2)


def test_only_attention_reads_the_question():
    """What was kept for one question must not be reused for another."""
    assert not create("mmr").question_aware
    assert not create("mmr", importance="norm").question_aware
    asked = create("mmr", importance="attention")
    assert asked.question_aware
    assert asked.needs == {Signal.LAST_QUERY_ATTENTION}
    assert asked == create("mmr", **asked.params())
    with pytest.raises(PlanError, match="mmr cannot prune before the language model"):
        prune(tiny("llava")[1], asked, keep=4)
