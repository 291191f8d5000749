import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.errors import MissingSignalError
from vlm_pruner.methods import create
from vlm_pruner.methods.mmtok import mmtok
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("mmtok"), ids=case_id)
def test_golden(case):
    tensors = build(case)
    vision = VisionSignals(features=tensors["vision"])
    tokens = VisualTokens(tensors["features"], words=tensors["words"], vision=vision)
    assert create("mmtok").select(tokens, case["keep"]).index.tolist() == case["expected"]["kept"]


def test_a_word_calls_its_token():
    features, vision = torch.eye(5), torch.ones(5, 2)
    assert mmtok(features, vision, features[3:4], 1).tolist() == [3]
    assert set(mmtok(features, vision, features[[1, 4]], 2).tolist()) == {1, 4}


def test_without_words_the_image_alone_is_covered():
    vision = torch.cat([torch.tensor([[1.0, 0.0]]).repeat(5, 1), torch.tensor([[0.0, 1.0]]).repeat(2, 1)])
    kept = mmtok(torch.ones(7, 3), vision, torch.zeros(0, 3), 2)
    assert {int(i) // 5 for i in kept} == {0, 1}  # one of each kind


def test_missing_words_are_named():
    with pytest.raises(MissingSignalError, match="mmtok needs WORDS"):
        create("mmtok").select(VisualTokens(torch.ones(3, 2), vision=VisionSignals(features=torch.ones(3, 2))), 2)
