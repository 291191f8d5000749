"""The shared pieces: ties, extremes, and what is left over."""

import pytest
import torch

from vlm_pruner.ops.basic import chosen, minmax, normalise, others, pool, ranking, together, top


def test_ranking_breaks_ties_towards_the_lower_index():
    score = torch.tensor([1.0, 3.0, 3.0, 0.0, 3.0])
    assert ranking(score).tolist() == [1, 2, 4, 0, 3]
    assert top(score, 2).tolist() == [1, 2]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_normalise_at_any_scale(scale):
    rows = normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]) * scale)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_normalise_returns_float32():
    assert normalise(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_minmax_of_a_constant_is_one():
    assert minmax(torch.full((3,), 5.0)).tolist() == [1, 1, 1]
    assert minmax(torch.tensor([2.0, 4.0, 6.0])).tolist() == [0, 0.5, 1]
    assert minmax(torch.tensor([0.0, 1.0]), 1.0).tolist() == [0.5, 1.0]


def test_chosen_and_others_part_the_tokens():
    index = torch.tensor([3, 0])
    assert chosen(index, 5).tolist() == [True, False, False, True, False]
    assert others(index, 5).tolist() == [1, 2, 4]


def test_pool_sums_by_slot_and_leaves_minus_one_out():
    rows = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    slot = torch.tensor([1, 0, 1, -1])
    assert pool(rows, slot, 3).flatten().tolist() == [2, 5, 0]
    assert pool(rows, slot, 2, torch.tensor([0.5, 1.0, 2.0, 1.0])).flatten().tolist() == [2, 8.5]


def test_rows_of_a_batch_are_not_copied():
    hidden = torch.randn(3, 50, 8)
    rows = together([row[10:40] for row in hidden])
    assert rows.data_ptr() == hidden[0, 10].data_ptr()
    assert torch.equal(rows, hidden[:, 10:40])
    keys = torch.randn(3, 2, 50, 4)
    assert together([k[:, 10:40] for k in keys]).data_ptr() == keys[0, 0, 10].data_ptr()
    assert together([hidden[0]] * 3).stride(0) == 0
    assert together([hidden[2]]).data_ptr() == hidden[2].data_ptr()


@pytest.mark.parametrize(
    "pick",
    [
        lambda x: [x[0], x[1], x[3]],
        lambda x: [x[2], x[1], x[0]],
        lambda x: [x[0], x[1].clone(), x[2]],
        lambda x: [x[0], x[0].T.contiguous().T],
        lambda x: [x[0, :3], x[1, ::2][:3]],
        lambda x: [row.clone() for row in x],
    ],
    ids=["uneven", "backwards", "elsewhere", "transposed", "strided", "apart"],
)
def test_other_images_are_stacked(pick):
    images = pick(torch.randn(4, 6, 5))
    assert torch.equal(together(images), torch.stack(images))
