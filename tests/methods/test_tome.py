import torch

from vlm_pruner.methods import create
from vlm_pruner.methods.tome import match, tome
from vlm_pruner.types import VisionSignals, VisualTokens


def test_one_round_by_hand():
    metric = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.2], [1.0, 0.1], [-1.0, 0.0]])
    stay, fresh = match(metric, 1)  # even 0, 2, 4; odd 1, 3; the best pair is 2 -> 3 (2 is nearer to 3 than 0 is)
    assert stay.tolist() == [0, 4, 1, 3]
    assert fresh.tolist() == [0, 2, 3, 3, 1]


def test_merged_rows_are_means_of_all_their_tokens():
    g = torch.Generator().manual_seed(0)
    rows, metric = torch.randn(23, 4, generator=g), torch.randn(23, 3, generator=g)
    for keep in (1, 5, 12, 20, 23):
        index, merged, slot = tome(rows, metric, keep)
        assert len(set(index.tolist())) == keep
        assert slot[index].tolist() == list(range(keep))
        for k in range(keep):
            torch.testing.assert_close(merged[k], rows[slot == k].mean(0))


def test_duplicates_merge_first():
    rows = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).repeat_interleave(2, 0)
    selection = create("tome").select(VisualTokens(rows), 8).validate(16, 8)
    assert selection.source.tolist() == [i // 2 for i in range(16)]
    torch.testing.assert_close(selection.features, rows[::2])


def test_keys_of_the_tower_decide():
    keys = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).repeat_interleave(2, 0)
    tokens = VisualTokens(torch.randn(16, 3), vision=VisionSignals(keys=torch.stack([keys + 1, keys - 1])))
    assert create("tome").select(tokens, 8).source.tolist() == [i // 2 for i in range(16)]
