"""The tiny model, loaded once for this directory, and a picture to ask it about."""

from __future__ import annotations

import pytest
from PIL import Image
from tests.support.tiny import checkpoint

from vlm_pruner.asking import Loaded, open_model
from vlm_pruner.web.desk import Desk
from vlm_pruner.web.gallery import Picture, gallery
from vlm_pruner.web.service import Service


@pytest.fixture(scope="session")
def tiny() -> Loaded:
    return open_model(str(checkpoint()))


@pytest.fixture(scope="session")
def picture() -> Picture:
    image = Image.radial_gradient("L").resize((200, 160)).convert("RGB")
    return Picture("photo-test", "A <test> picture", image, ("what is this ?",))


@pytest.fixture
def desk(tiny: Loaded, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The desk of the tiny model, whose gallery has one more picture."""
    monkeypatch.setattr("vlm_pruner.web.desk.gallery", lambda: {**gallery(), picture.key: picture})
    return Desk(Service(tiny), columns=4)
