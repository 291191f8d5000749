"""Videos through the commands: answers, strips and animations, and one line for every file that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.support.commands import complaint, run
from tests.support.tiny import checkpoint
from tests.support.videos import write_broken, write_folder, write_gif, write_video

QUESTION = "what is this ?"
TOLD = "this model takes no videos: {} frames are asked about, each as a picture of its own"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("videos")
    write_video(made / "clip.mp4", 60)
    write_gif(made / "clip.gif", 3)
    write_folder(made / "frames", 3)
    return made


def ask(path: Path, *words: object):
    words = ("--model", checkpoint(), "--max-new-tokens", 2, "--keep", 64, "--method", "evs", *words)
    return run("ask", path, QUESTION, *words)


@pytest.mark.parametrize(("name", "frames"), [("clip.mp4", 2), ("clip.gif", 3), ("frames", 3)])
def test_a_model_without_videos_is_asked_about_frames(name: str, frames: int, folder: Path, tmp_path: Path) -> None:
    result = ask(
        folder / name, "--json", "--overlay", tmp_path / "strip.png", *(["--frames", 2] if frames == 2 else [])
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert TOLD.format(frames) in result.stderr
    data = json.loads(result.stdout)
    assert [image["kept"] for image in data["answers"][1]["report"]["images"]] == [64] * frames
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width == 960


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_the_overlay_of_a_video_can_move(ending: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / f"film.{ending}"
    assert ask(folder / "clip.gif", "--overlay", path).exit_code == 0
    with Image.open(path) as film:
        assert film.n_frames == 3
        assert film.width == 480


def test_how_many_frames_are_shown_to_a_model_without_videos(folder: Path) -> None:
    assert TOLD.format(4) in ask(folder / "clip.mp4").stderr
    assert TOLD.format(3) in ask(folder / "clip.mp4", "--fps", 1.5).stderr
    said = complaint(ask(folder / "clip.gif", "--frames", 0))
    assert "0 frames cannot be taken of a video: give 1 to 768" in said
    assert "exclude each other" in complaint(ask(folder / "clip.gif", "--frames", 2, "--fps", 1))


def test_more_frames_than_a_model_has_places_for_are_refused_with_the_limit(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", 20)
    result = ask(folder, "--frames", 20)
    assert result.exit_code == 2
    assert "this model reads at most" in result.stderr


def test_a_report_shows_frames(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    words = ("--model", checkpoint(), "--methods", "evs,tome", "--keep", 64, "--max-new-tokens", 2, "-o", page)
    assert run("report", folder / "clip.gif", QUESTION, *words).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/webp;base64,") == 2
    assert "Video: clip.gif, 3 frames of 0.3 seconds, 64 x 48 pixels." in text
    assert TOLD.format(3) in text


def test_a_picture_has_no_frames(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert "is no video: leave out --fps and --frames" in complaint(ask(tmp_path / "a.png", "--frames", 2))


def test_what_has_the_budget_is_image_or_frame(folder: Path) -> None:
    assert "--per is image or frame, not 'video'" in complaint(ask(folder / "clip.gif", "--per", "video"))
    assert ask(folder / "clip.gif", "--per", "frame").exit_code == 0


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    made = tmp_path_factory.mktemp("broken")
    return made, write_broken(made)


@pytest.mark.parametrize(
    "name",
    ["empty.mp4", "text.mp4", "cut.mp4", "noise.webm", "sound.mp4", "long.mkv", "nothing", "missing.mp4"],
)
def test_bad_files_are_one_line(name: str, broken: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, said = broken
    assert set(said) >= {name}
    assert said[name] in complaint(ask(folder / name))
    words = ("--model", checkpoint(), "-o", tmp_path / "r.html")
    assert said[name] in complaint(run("report", folder / name, QUESTION, *words))


def test_own_questions_about_videos(folder: Path, tmp_path: Path) -> None:
    lines = [
        {"video": str(folder / "clip.mp4"), "frames": 2, "question": QUESTION, "answer": "x", "group": "file"},
        {"video": str(folder / "frames"), "question": QUESTION, "answer": "x", "group": "folder"},
    ]
    data, out = tmp_path / "q.jsonl", tmp_path / "bench.json"
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    words = ("--model", checkpoint(), "--methods", "evs", "--keep", 64, "--repeats", 1, "--jobs", 1, "-o", out)
    result = run("bench", "--data", data, "--max-new-tokens", 2, *words)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "evs" in result.stdout
    data.write_text(json.dumps(lines[0] | {"video": "missing.mp4"}), encoding="utf-8")
    assert "question 'line-1': no video at" in complaint(run("bench", "--data", data, *words))
