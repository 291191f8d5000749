"""The tiny model, loaded once for this directory."""

from __future__ import annotations

import pytest
from tests.support.tiny import checkpoint

from vlm_pruner.asking import Loaded, open_model


@pytest.fixture(scope="session")
def tiny() -> Loaded:
    return open_model(str(checkpoint()))
