import torch

from vlm_pruner.methods._merge import merged


def test_slots_follow_the_tokens_into_ascending_order():
    order, rows = torch.tensor([5, 1, 3]), torch.tensor([[5.0], [1.0], [3.0]])
    slot = torch.tensor([0, 1, -1, 2, 2, 0])
    selection = merged(order, rows, slot, torch.bfloat16).validate(6, 3)
    assert selection.index.tolist() == [1, 3, 5]
    assert selection.features.flatten().tolist() == [1, 3, 5]
    assert selection.features.dtype == torch.bfloat16
    assert selection.source.tolist() == [2, 0, -1, 1, 1, 2]
