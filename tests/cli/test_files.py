"""Outputs that cannot be written are one line before the model runs, and answers are never lost with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.support.commands import complaint, run
from tests.support.tiny import checkpoint

from vlm_pruner import asking
from vlm_pruner.cli.files import saving, writable
from vlm_pruner.errors import InputError


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(asking, "open_model", refuse)
    monkeypatch.setattr("vlm_pruner.profiling.subject_named", refuse)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("words", "option", "ending"),
    [
        (("ask", "demo", "What?"), "--overlay", ".png"),
        (("report", "demo", "What?"), "-o", ".html"),
        (("bench",), "-o", ".json"),
        (("profile", "embedded"), "--plot", ".png"),
    ],
)
@pytest.mark.parametrize("place", ["a file as a folder", "a folder", "a long name", "no such device"])
def test_what_cannot_be_written_is_said_before_the_work(
    words: tuple[str, ...], option: str, ending: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("here")
    (tmp_path / f"folder{ending}").mkdir()
    path = {
        "a file as a folder": tmp_path / "file" / f"out{ending}",
        "a folder": tmp_path / f"folder{ending}",
        "a long name": tmp_path / ("x" * 300 + ending),
        "no such device": Path(f"/proc/nothing/out{ending}"),
    }[place]
    said = complaint(run(*words, option, path))
    assert "cannot write" in said or "is a folder; name a file in it" in said
    assert (tmp_path / "file").read_text() == "here"


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("words", "known"),
    [
        (("report", "demo", "What?", "-o", "out.txt"), ".html, .htm"),
        (("bench", "-o", "out.md"), ".json"),
        (("bench", "-o", "out"), ".json"),
        (("profile", "--plot", "out.txt"), ".png, .svg, .pdf"),
    ],
)
def test_an_ending_that_means_something_else_is_refused(
    words: tuple[str, ...], known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bench -o out.md` wrote its results over its tables."""
    monkeypatch.chdir(tmp_path)
    assert complaint(run(*words)).endswith(f"end it with {known}")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_model")
def test_the_picture_that_is_asked_about_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "cup.png"
    Image.new("RGB", (32, 32)).save(path)
    before = path.read_bytes()
    said = complaint(run("ask", path, "What?", "--overlay", path))
    assert "is the image that is asked about" in said
    assert path.read_bytes() == before


def test_looking_at_a_file_leaves_it_as_it_was(tmp_path: Path) -> None:
    there, new = tmp_path / "a.json", tmp_path / "deep" / "b.json"
    there.write_text("old")
    assert writable(there).read_text() == "old"
    assert not writable(new).exists()
    assert new.parent.is_dir()


def test_a_disk_that_fills_up_is_told_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write '.*a\.json': No space left"), saving(tmp_path / "a.json"):
        raise OSError(28, "No space left on device")


def disk_full(*args: Any, **kwargs: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("json_too", [False, True])
def test_answers_are_told_although_their_picture_cannot_be_saved(
    json_too: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "cup.png")
    monkeypatch.setattr(Image.Image, "save", disk_full)
    words = ["--model", checkpoint(), "--max-new-tokens", 2, "--method", "random", *(["--json"] if json_too else [])]
    result = run("ask", tmp_path / "cup.png", "what is this ?", "--overlay", tmp_path / "kept.png", *words)
    assert "No space left on device" in complaint(result, stdout=True)
    if json_too:
        assert len(json.loads(result.stdout)["answers"]) == 2
    else:
        assert "left at the end" in result.stdout


def test_answers_are_told_although_the_report_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "cup.png")
    monkeypatch.setattr(Path, "write_text", disk_full)
    words = ["--model", checkpoint(), "--max-new-tokens", 2, "--methods", "random", "--keep", "64"]
    result = run("report", tmp_path / "cup.png", "what is this ?", "-o", tmp_path / "r.html", *words)
    assert "No space left on device" in complaint(result, stdout=True)
    assert "all tokens: " in result.stdout
    assert "random 64: " in result.stdout
