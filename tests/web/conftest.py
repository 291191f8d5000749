"""The tiny model, loaded once for this directory, and a picture to ask it about; the page of the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tests.support.browser import chromium, find
from tests.support.tiny import checkpoint
from tests.support.visit import DESKTOP, demo

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
    return Desk(Service(tiny))


@pytest.fixture(scope="package")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="package")
def address(server_folder: Path) -> Iterator[str]:
    """The page of the embedded model, started once for all tests that look at it in a browser."""
    find()
    pytest.importorskip("gradio", reason="needs the extra `web`")
    with demo(server_folder) as found:
        yield found


@pytest.fixture
def hold(server_folder: Path) -> Iterator[Path]:
    """A file that keeps the model of `address` busy until it is gone."""
    file = server_folder / "hold"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def browser():
    """Ended before a test of another file starts one: Playwright runs one at a time."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def context(browser):
    return browser.new_context(viewport=DESKTOP)
