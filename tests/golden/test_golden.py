"""Every golden case can be rebuilt here: the recipes and NumPy's random stream are those of the expected numbers."""

import pytest
from tests.support import golden


@pytest.mark.parametrize("method", golden.methods())
def test_checksums(method):
    for case in golden.cases(method):
        golden.build(case)


def test_misspelt_method_lists_the_known_ones():
    with pytest.raises(LookupError, match="vlm-pruner"):
        golden.cases("vlm-prunner")
