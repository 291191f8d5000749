import torch

from vlm_pruner.methods._density import nearest, peaks


def plain(rows, k):
    """Density and distance to the next denser row of every row [m, d], one after the other; no two equally dense."""
    square = (rows[:, None] - rows[None]).square().sum(2) / rows.shape[1]
    density = [(-square[i].sort().values[:k].mean()).exp() for i in range(len(rows))]
    delta = []
    for i in range(len(rows)):
        denser = [square[i, j] for j in range(len(rows)) if density[j] > density[i]]
        delta.append((min(denser) if denser else square.max()).sqrt())
    return torch.stack([a * b for a, b in zip(density, delta, strict=True)]), square


def test_score_is_density_times_distance_to_the_next_denser_row():
    rows = torch.randn(3, 17, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score, square = peaks(rows, torch.ones(3, 17, dtype=torch.int64), 4)
    for frame in range(3):
        expected, apart = plain(rows[frame], 4)
        torch.testing.assert_close(score[frame].exp(), expected)
        torch.testing.assert_close(square[frame], apart)


def test_rows_of_no_group_take_no_part():
    rows = torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    group = torch.zeros(1, 20, dtype=torch.int64)
    group[0, 3:15], group[0, 15:] = 1, 2
    score, square = peaks(rows, group, 5)
    assert (score[0, :3] == -torch.inf).all()
    torch.testing.assert_close(score[0, 3:15].exp(), plain(rows[0, 3:15], 5)[0])
    torch.testing.assert_close(score[0, 15:].exp(), plain(rows[0, 15:], 5)[0])
    assert square[0, 3:15, 15:].isinf().all()


def test_copies_of_a_row_are_one_peak_and_it_is_the_first():
    row = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    rows = row.repeat(5, 1)[None]  # 0 1 2 3 0 1 2 3 ...
    score, square = peaks(rows, torch.ones(1, 20, dtype=torch.int64), 3)
    order = score[0].argsort(descending=True, stable=True)
    assert sorted(order[:4].tolist()) == [0, 1, 2, 3]
    assert (score[0, 4:] == -torch.inf).all()
    centre = torch.zeros(1, 20, dtype=torch.bool)
    centre[0, :8] = True
    assert nearest(square, centre)[0].tolist() == [0, 1, 2, 3] * 5
