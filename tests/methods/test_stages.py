import pytest

from vlm_pruner.methods._stages import counts, layers, scaled


@pytest.mark.parametrize(
    ("num_layers", "expected"), [(32, [3, 7, 16]), (28, [3, 6, 14]), (64, [6, 14, 32]), (5, [1, 2, 3]), (2, [1, 1, 1])]
)
def test_layers_keep_their_depth(num_layers, expected):
    assert layers((3, 7, 16), num_layers) == expected


def test_counts_between_the_rows_of_the_table():
    table = {64: (66, 30), 128: (128, 40)}
    assert counts(table, 64) == [66, 30]
    assert counts(table, 96) == [97, 35]
    assert counts(table, 32) == [33, 15]
    assert counts(table, 1) == [1, 1]
    assert counts(table, 576) == [576, 576]
    assert counts(table, 2000) == [2000, 2000]
    assert counts(table, 1.0) == [1.0, 1.0]
    assert counts(table, 64 / 576) == pytest.approx([66 / 576, 30 / 576])


def test_scaled_keeps_the_kind_of_budget():
    assert scaled(64, 1.5) == 96
    assert scaled(1, 0.25) == 1
    assert scaled(0.125, 2.0) == 0.25
    assert scaled(0.9, 2.0) == 1.0
