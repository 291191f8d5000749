"""The colours of regions are those that were published for all kinds of colour blindness."""

from __future__ import annotations

from vlm_pruner.viz.palette import REGIONS

OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")


def test_regions_have_the_colours_of_okabe_and_ito() -> None:
    assert tuple("#{:02X}{:02X}{:02X}".format(*colour) for colour in REGIONS) == OKABE_ITO
