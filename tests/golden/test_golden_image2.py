"""The golden cases of the image methods of 2026 can be rebuilt: the recipes and NumPy's random stream are theirs."""

import pytest
from tests.support import golden_image2


@pytest.mark.parametrize("method", golden_image2.methods())
def test_checksums(method):
    for case in golden_image2.cases(method):
        golden_image2.build(case)


def test_there_are_29_of_them():
    assert sum(len(golden_image2.cases(method)) for method in golden_image2.methods()) == 29


def test_misspelt_method_lists_the_known_ones():
    with pytest.raises(LookupError, match="prunesid"):
        golden_image2.cases("prune-sid")
