"""Files as people have them, through every door: `ask`, `report`, several pictures in one call, and the page."""

from __future__ import annotations

import base64
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support import tiny
from tests.support.checkpoints import checkpoint
from tests.support.commands import complaint, run
from tests.support.real_pictures import QUESTIONS, THIN, write_pictures
from tests.support.vision import needs_torchvision
from transformers import LlavaProcessor

from vlm_pruner.asking import Loaded, open_image, open_model
from vlm_pruner.errors import InputError
from vlm_pruner.web.controls import row_of
from vlm_pruner.web.desk import Desk
from vlm_pruner.web.service import Service
from vlm_pruner.web.settings import UPLOADED, Choice

NAMES = (
    "grey8.png", "grey16.png", "grey12in16.png", "float.tiff", "alpha.png", "ink.png", "palette.png", "cmyk.jpg",
    "tall.png",
)  # fmt: skip
QUESTION = "What is this?"
FEW = ("--keep", 0.5, "--max-new-tokens", 1)
QWEN = pytest.param("qwen2_5_vl", marks=needs_torchvision)


@cache
def loaded(name: str) -> Loaded:
    return open_model(str(tiny.checkpoint() if name == "336" else checkpoint(name)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def right(folder: Path) -> dict[str, Any]:
    return write_pictures(folder)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every picture that is handed to a processor."""
    pictures: list[Any] = []
    plain = LlavaProcessor.__call__

    def noting(self: Any, images: Any = None, **more: Any) -> Any:
        pictures.extend(np.asarray(one).astype(int) for one in images)
        return plain(self, images=images, **more)

    monkeypatch.setattr(LlavaProcessor, "__call__", noting)
    return pictures


def on_the_page(model: str, path: Path, question: str = QUESTION) -> tuple[str, str]:
    """Status and alert of the last frame of a visitor's comparison."""
    desk = Desk(Service(loaded(model)))
    uploaded, problem = desk.upload(str(path))
    if uploaded is None:
        return "", problem
    last = list(desk.run("ann", UPLOADED, uploaded, question, row_of([Choice("grid", 50)]), 1))[-1]
    return last.status, last.alert


def test_all_names_are_tried(right: dict[str, Any]) -> None:
    assert set(NAMES) == right.keys()


@pytest.mark.parametrize("name", NAMES)
def test_ask_sees_what_a_viewer_shows(name: str, folder: Path, right: dict[str, Any], seen: list[Any]) -> None:
    result = run("ask", folder / name, QUESTION, "--model", checkpoint("llava"), *FEW)
    assert result.exit_code == 0, (result.output, result.exception)
    assert seen
    assert np.abs(seen[0] - right[name]).max() <= 1
    assert ("shown by the range from 0 to 4095" in result.stderr) == (name == "grey12in16.png")


@pytest.mark.parametrize("name", NAMES)
def test_a_report_sees_and_shows_it(
    name: str, folder: Path, right: dict[str, Any], seen: list[Any], tmp_path: Path
) -> None:
    words = ("--model", checkpoint("llava"), "--methods", "grid", *FEW, "-o", tmp_path / "r.html")
    assert run("report", folder / name, QUESTION, *words).exit_code == 0
    assert np.abs(seen[0] - right[name]).max() <= 1
    lead = re.search(r'base64,([^"]+)" alt="The image', (tmp_path / "r.html").read_text(encoding="utf-8"))
    assert lead is not None
    with Image.open(io.BytesIO(base64.b64decode(lead[1]))) as shown:
        assert np.abs(np.asarray(shown).astype(int) - right[name]).mean() <= 6, "JPEG, of which colours are halved"


def test_several_pictures_in_one_call_are_seen_alike(folder: Path, right: dict[str, Any], seen: list[Any]) -> None:
    loaded("llava").inputs(QUESTION, [open_image(folder / name) for name in NAMES])
    assert len(seen) == len(NAMES)
    for name, one in zip(NAMES, seen, strict=True):
        assert np.abs(one - right[name]).max() <= 1, name


def test_several_pictures_that_no_file_was_opened_for_are_seen_alike(
    folder: Path, right: dict[str, Any], seen: list[Any]
) -> None:
    """As Pillow gives them: modes of 16 bits, floats, transparency."""
    loaded("llava").inputs(QUESTION, [Image.open(folder / name) for name in NAMES])
    for name, one in zip(NAMES, seen, strict=True):
        assert np.abs(one - right[name]).max() <= 1, name


@pytest.mark.parametrize("name", NAMES)
def test_the_page_sees_it(name: str, folder: Path, right: dict[str, Any], seen: list[Any]) -> None:
    status, alert = on_the_page("llava", folder / name)
    assert (alert, "Done." in status) == ("", True)
    assert np.abs(seen[0] - right[name]).max() <= 1


@pytest.mark.usefixtures("right")
@pytest.mark.parametrize("height", THIN)
def test_a_picture_of_one_pixel_in_width_is_one_line_where_gigabytes_would_arise(
    height: int, folder: Path, tmp_path: Path
) -> None:
    path = folder / f"thin{height}.png"
    said = f"(1 x {height} pixels) is too thin for this model: its processor makes 336 x {336 * height}"
    report = ("--methods", "grid", "-o", tmp_path / "r.html")
    for words in (("ask", path, QUESTION), ("report", path, QUESTION, *report)):
        assert f"'{path.name}' {said}" in complaint(run(*words, "--model", tiny.checkpoint(), *FEW))
    assert said in complaint(run("profile", tiny.checkpoint(), "--image", path, "--repeats", 1))
    with pytest.raises(InputError, match="too thin"):
        loaded("336").inputs(QUESTION, [Image.new("RGB", (40, 40)), open_image(path)])
    assert "is too thin for this model" in on_the_page("336", path)[1]


@pytest.mark.usefixtures("right")
def test_a_picture_of_one_pixel_in_width_is_answered_where_little_arises(folder: Path) -> None:
    assert run("ask", folder / "thin1000.png", QUESTION, "--model", checkpoint("llava"), *FEW).exit_code == 0
    assert "Done." in on_the_page("llava", folder / "thin1000.png")[0]


@pytest.mark.usefixtures("right")
def test_tall_pictures_of_llava_next_are_answered(folder: Path, tmp_path: Path) -> None:
    for words in (("ask",), ("report", "--methods", "grid", "-o", tmp_path / "r.html")):
        result = run(words[0], folder / "tall.png", QUESTION, *words[1:], "--model", checkpoint("llava_next"), *FEW)
        assert result.exit_code == 0, (result.output, result.exception)
    assert "Done." in on_the_page("llava_next", folder / "tall.png")[0]


@pytest.mark.usefixtures("right")
@pytest.mark.parametrize("model", [QWEN])
def test_wide_pictures_of_qwen_are_refused_with_the_limit(model: str, folder: Path, tmp_path: Path) -> None:
    path = folder / "wide.png"
    for words in (("ask",), ("report", "--methods", "grid", "-o", tmp_path / "r.html")):
        said = complaint(run(words[0], path, QUESTION, *words[1:], "--model", checkpoint(model), *FEW))
        assert "refuses 'wide.png' (1200 x 4 pixels): absolute aspect ratio must be smaller than 200, got 300" in said
    with pytest.raises(InputError, match=r"'wide\.png'.*smaller than 200"):
        loaded(model).inputs(QUESTION, [Image.new("RGB", (40, 40)), open_image(path)])
    assert "'wide.png' (1200 x 4 pixels)" in on_the_page(model, path)[1].replace("&#x27;", "'")


@pytest.mark.usefixtures("right")
@pytest.mark.parametrize("model", ["llava", QWEN])
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda text: ascii(text)[:36])
def test_a_question_is_answered_or_refused_in_one_line(model: str, question: str, folder: Path) -> None:
    result = run("ask", folder / "grey8.png", question, "--model", checkpoint(model), *FEW)
    if result.exit_code:
        assert any(word in complaint(result) for word in ("placeholder", "control token", "reads at most", "UTF-8"))
    else:
        assert "left at the end" in result.stdout
    assert "Traceback" not in result.output
