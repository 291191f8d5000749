"""Video files to frames: as players show them, at the times that were asked for, and one line where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.videos import RATE, moving, turn, write_broken, write_sound, write_video
from torch import Tensor
from transformers.video_utils import load_video

from vlm_pruner import InputError
from vlm_pruner.video import Clip, Sampling, open_video


def unlike(clip: Clip, number: int, of: int, size: tuple[int, int] = (320, 240)) -> list[float]:
    """Mean difference of every frame of a clip from the picture of that number."""
    right = torch.from_numpy(moving(number, of, size)).permute(2, 0, 1).float()
    return [float((frame.float() - right).abs().mean()) for frame in clip.frames]


def shown(clip: Clip, of: int) -> list[int]:
    """The number of the picture that each frame looks like most."""
    right = torch.stack([torch.from_numpy(moving(k, of)).permute(2, 0, 1) for k in range(of)]).float()
    return [int((right - frame.float()).abs().mean((1, 2, 3)).argmin()) for frame in clip.frames]


@pytest.mark.parametrize("sampling", [Sampling(frames=8), Sampling(frames=7), Sampling(frames=150), Sampling(frames=1)])
def test_the_frames_of_transformers_where_those_can_be_had(sampling: Sampling, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    right, told = load_video(str(path), num_frames=sampling.frames)
    clip = open_video(path, sampling)
    assert torch.equal(clip.frames, torch.from_numpy(right).permute(0, 3, 1, 2))
    own = clip.metadata()
    assert own["frames_indices"] == [int(index) for index in told.frames_indices]
    assert (own["fps"], own["total_num_frames"], own["duration"]) == (told.fps, told.total_num_frames, told.duration)
    assert (own["width"], own["height"]) == (told.width, told.height)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "avi"])
def test_files_with_and_without_a_count_of_frames(ending: str, tmp_path: Path) -> None:
    clip = open_video(write_video(tmp_path / f"a.{ending}"), Sampling(fps=3))
    assert (len(clip), clip.size, clip.fps, clip.name) == (15, (320, 240), RATE, f"a.{ending}")
    assert clip.duration == pytest.approx(5, abs=0.04)
    assert clip.times == pytest.approx([k / 3 for k in range(15)], abs=0.002)
    assert shown(clip, 150) == pytest.approx([10 * k for k in range(15)], abs=1)  # neighbours are alike
    assert clip.metadata()["frames_indices"] == pytest.approx([10 * k for k in range(15)], abs=0.05)
    assert not clip.notes


def test_frames_at_uneven_distances_are_taken_by_time(tmp_path: Path) -> None:
    begins = [0, 0.1, 0.2, 3.0, 3.1, 4.9]
    clip = open_video(write_video(tmp_path / "a.mkv", 6, at=begins), Sampling(frames=6))
    assert clip.duration > 4.9
    assert shown(clip, 6) == [0, 2, 2, 2, 4, 4]
    numbers = clip.metadata()["frames_indices"]
    assert [number / clip.fps for number in numbers] == pytest.approx([0, 0.2, 0.2, 0.2, 3.1, 3.1], abs=0.05)


def test_a_video_of_a_telephone_is_shown_upright(tmp_path: Path) -> None:
    flat = open_video(write_video(tmp_path / "a.mp4", 10), Sampling(frames=2))
    clip = open_video(turn(tmp_path / "a.mp4"), Sampling(frames=2))
    assert clip.size == (240, 320)
    assert torch.equal(clip.frames, torch.rot90(flat.frames, -1, (2, 3)))
    assert clip.notes == ("it is stored on its side or upside down: shown upright",)


def test_pixels_that_are_no_squares_are_made_square(tmp_path: Path) -> None:
    clip = open_video(write_video(tmp_path / "a.mp4", 10, aspect=Fraction(3, 2)), Sampling(frames=2))
    assert clip.size == (480, 240)


@pytest.mark.parametrize("size", [(240, 320), (64, 48), (98, 182)])
def test_portrait_and_small(size: tuple[int, int], tmp_path: Path) -> None:
    clip = open_video(write_video(tmp_path / "a.mp4", 5, size))
    assert clip.size == size
    assert unlike(clip, 0, 5, size)[0] < 6


def test_one_frame_is_said(tmp_path: Path) -> None:
    clip = open_video(write_video(tmp_path / "a.mp4", 1))
    assert (len(clip), clip.notes) == (1, ("it has one frame only",))
    assert unlike(clip, 0, 1)[0] < 6
    assert len(clip.lasting(2)) == 2
    assert torch.equal(clip.lasting(2).frames[0], clip.lasting(2).frames[1])


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "cut.mp4", "noise.webm", "sound.mp4", "long.mkv"])
def test_bad_files_are_one_line(name: str, tmp_path: Path) -> None:
    said = write_broken(tmp_path)[name]
    with pytest.raises(InputError) as caught:
        open_video(tmp_path / name)
    assert str(caught.value) == f"{str(tmp_path / name)!r} {said}"


def test_an_end_that_is_missing_is_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 300)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
    clip = open_video(path, Sampling(frames=4))
    (note,) = [note for note in clip.notes if "its end is missing" in note]
    assert "of 10.0 seconds are there" in note
    assert clip.duration < 6


def test_sound_beside_pictures_is_no_missing_end(tmp_path: Path) -> None:
    assert not open_video(write_video(tmp_path / "a.mp4", 30)).notes
    with pytest.raises(InputError, match="sound"):
        open_video(write_sound(tmp_path / "b.mp4"))


def test_frames_that_change_their_size_are_refused(tmp_path: Path) -> None:
    first, second = write_video(tmp_path / "a.mp4", 20, (64, 48)), write_video(tmp_path / "b.mp4", 20, (96, 64))
    both = tmp_path / "c.ts"
    with both.open("wb") as out:
        for path in (first, second):
            out.write(_as_stream(path, tmp_path))
    with pytest.raises(InputError, match="its frames change their size, to 96 x 64"):
        open_video(both, Sampling(frames=20))


def _as_stream(path: Path, folder: Path) -> bytes:
    """The same frames in the format that can be put behind one another."""
    size = open_video(path).size
    return write_video(folder / f"{path.stem}.ts", 20, size).read_bytes()


def test_large_frames_are_read_smaller_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_pruner.video.sampling.READ_PIXELS", 4 * 160 * 120)
    clip = open_video(write_video(tmp_path / "a.mp4", 30), Sampling(frames=4))
    assert clip.size == (160, 120)
    assert clip.notes == ("its frames of 320 x 240 pixels are read at 160 x 120",)


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"needs av: pip install 'vlm-pruner\[video\]'"):
        open_video(path)


MEMORY = """
import sys
from vlm_pruner.video import Sampling, open_video
clip = open_video(sys.argv[1], Sampling(frames=int(sys.argv[2])))
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1000
print(peak, len(clip), round(clip.duration))
"""


@pytest.mark.slow
@pytest.mark.parametrize("frames", [32, 768])
def test_ten_minutes_take_less_than_a_gibibyte(frames: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 6000, (1280, 720), rate=10, codec="mpeg4", picture=_still())
    done = subprocess.run([sys.executable, "-c", MEMORY, path, str(frames)], capture_output=True, text=True, check=True)
    peak, count, seconds = map(int, done.stdout.split())
    assert (count, seconds) == (frames, 600)
    assert peak < 1073


def _still() -> object:
    """Pictures that cost no time to paint."""
    known = [moving(k, 4, (1280, 720)) for k in range(4)]
    return lambda number, of, size: known[number // 50 % 4]


@pytest.mark.parametrize(
    "wrong",
    [
        (torch.zeros(2, 3, 4, 4), (0.0, 1.0)),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), (0.0, 1.0)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), (0.0,)),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), ()),
    ],
)
def test_frames_of_another_kind_are_refused(wrong: tuple[Tensor, tuple[float, ...]]) -> None:
    with pytest.raises(InputError):
        Clip(*wrong, 1.0, 1.0)


def test_metadata_is_made_anew() -> None:
    clip = Clip(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), (0.0, 0.5, 1.0), 2.0, 1.5)
    first = clip.metadata()
    first["frames_indices"].append(7)
    assert clip.metadata()["frames_indices"] == [0, 1, 2]
    assert np.array_equal(np.asarray(clip.picture(0)), np.zeros((4, 4, 3)))
