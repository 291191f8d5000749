"""How a method is asked for."""

from __future__ import annotations

import pytest

from vlm_pruner.errors import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.base import method_class


def test_a_method_is_a_name_or_an_instance():
    with pytest.raises(PlanError, match="got the class VLMPruner"):
        create(method_class("vlm-pruner"))
    with pytest.raises(PlanError, match=r"vlm-pruner cannot be made with \{'pivots': '4'\}"):
        create("vlm-pruner", pivots="4")
    with pytest.raises(PlanError, match="did you mean 'pivots'"):
        create("vlm-pruner", pivot=4)
