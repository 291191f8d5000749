"""What a question is about: pictures, video files, GIFs and folders of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.videos import moving, write_broken, write_folder, write_gif, write_video

from vlm_pruner import InputError
from vlm_pruner.asking.videos import is_video, open_shown
from vlm_pruner.video import Clip, Sampling


def clip_of(path: Path, sampling: Sampling | None = None) -> Clip:
    shown = open_shown(path, sampling)
    assert isinstance(shown, Clip)
    return shown


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    clip = clip_of(write_folder(tmp_path / "frames"))
    assert torch.equal(clip.frames[10], torch.from_numpy(moving(10, 12, (64, 48))).permute(2, 0, 1))
    assert (clip.fps, clip.times[:3], clip.duration, clip.name) == (2.0, (0.0, 0.5, 1.0), 6.0, "frames")
    assert clip.notes == ("frames of a folder have no times: taken as 2 a second",)


def test_a_folder_of_which_some_frames_are_taken_at_a_rate_that_is_known(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames")
    assert clip_of(folder, Sampling(frames=3)).times == (0.0, 2.0, 4.0)
    clip = clip_of(folder, Sampling(fps=8))
    assert (len(clip), clip.fps, clip.duration, clip.notes) == (12, 8.0, 1.5, ())
    assert clip.metadata()["frames_indices"] == list(range(12))


def test_a_gif_is_a_video_where_it_moves(tmp_path: Path) -> None:
    clip = clip_of(write_gif(tmp_path / "a.gif"), Sampling(frames=5))
    assert (clip.fps, clip.duration, clip.times) == (10.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8))
    for number, frame in zip((0, 2, 4, 6, 8), clip.pictures(), strict=True):
        assert np.abs(np.asarray(frame).astype(int) - moving(number, 10, (64, 48))).mean() < 3
    Image.new("RGB", (8, 8)).save(tmp_path / "still.gif")
    assert isinstance(open_shown(tmp_path / "still.gif"), Image.Image)


def test_frames_of_a_gif_that_are_as_short_as_can_be_last_as_in_browsers(tmp_path: Path) -> None:
    assert clip_of(write_gif(tmp_path / "a.gif", 10, 10)).duration == 1.0


@pytest.mark.parametrize(
    ("name", "video"), [("a.MP4", True), ("a.webm", True), ("a.png", False), ("demo", False), ("no.gif", False)]
)
def test_endings_say_what_a_file_is(name: str, video: bool) -> None:
    assert is_video(name) is video


def test_bad_files_and_folders_are_one_line(tmp_path: Path) -> None:
    for name, said in write_broken(tmp_path).items():
        with pytest.raises(InputError) as caught:
            open_shown(tmp_path / name)
        assert said in str(caught.value)
        assert repr(str(tmp_path / name)) in str(caught.value)


def test_a_gif_that_breaks_off_is_said(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "a.gif")
    assert not clip_of(path).notes
    path.write_bytes(path.read_bytes()[:-900])
    (note,) = clip_of(path).notes
    assert "it breaks off after" in note


def test_frames_of_several_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", 2)
    Image.new("RGB", (8, 8)).save(folder / "frame3.png")
    with pytest.raises(InputError, match="the frames of a video have one size; these have 2: 8 x 8, 64 x 48"):
        open_shown(folder)


def test_a_name_that_is_nearly_right_is_proposed(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 2)
    with pytest.raises(InputError, match=r"no video at .*did you mean '.*clip\.mp4'"):
        open_shown(tmp_path / "clp.mp4")


def test_a_picture_has_no_frames_to_be_taken(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is no video: leave out --fps and --frames"):
        open_shown(tmp_path / "a.png", Sampling(frames=2))
