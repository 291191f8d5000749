import itertools

import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.errors import MissingSignalError
from vlm_pruner.methods import create
from vlm_pruner.methods.cdpruner import relevance
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("cdpruner"), ids=case_id)
def test_golden(case):
    selection = create("cdpruner").select(VisualTokens(**build(case)), case["keep"])
    assert selection.index.tolist() == case["expected"]["kept"]


def test_relevance_is_negated_unless_told_otherwise():
    image, text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert relevance(image, text).argsort().tolist() == [0, 1, 2]
    assert relevance(image, text, negate=False).argsort().tolist() == [2, 1, 0]
    assert relevance(torch.ones(3, 2), text).tolist() == [1, 1, 1]
    half = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])  # cosines 1, 0, 1, 0.6
    assert relevance(half, text, negate=False).tolist() == pytest.approx([1, 0, 1, 0.6], abs=1e-5)


def test_words_stand_in_for_a_missing_shared_space():
    g = torch.Generator().manual_seed(3)
    features, words = torch.randn(12, 6, generator=g), torch.randn(4, 6, generator=g)
    substitute = create("cdpruner").select(VisualTokens(features, words=words), 5)
    mean = words.mean(0, keepdim=True)
    direct = create("cdpruner").select(VisualTokens(features, image_embeds=features, text_embeds=mean), 5)
    assert substitute.order.tolist() == direct.order.tolist()
    with pytest.raises(MissingSignalError, match="SHARED_SPACE"):
        create("cdpruner").select(VisualTokens(features), 5)


def test_the_question_matters():
    g = torch.Generator().manual_seed(4)
    features = torch.randn(30, 6, generator=g)
    kept = {tuple(create("cdpruner").select(VisualTokens(features, words=w), 4).index.tolist())
            for w in torch.eye(6).mul(3).split(1)}  # fmt: skip
    assert len(kept) > 1
    assert all(len(set(a) | set(b)) <= 8 for a, b in itertools.combinations(kept, 2))
