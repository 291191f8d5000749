"""What is profiled, by name: prompts of the asked length, and names and sizes that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.support.tiny import checkpoint

from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.profiling import profile, subject, subject_named
from vlm_pruner.video import Sampling

IMAGE = 4  # placeholder of the tiny checkpoint


def test_a_checkpoint_looks_at_the_demo_scene() -> None:
    found = subject_named(str(checkpoint()), question="what is this ?")
    assert int((found.inputs["input_ids"] == IMAGE).sum()) == 576
    assert found.inputs["pixel_values"].shape == (1, 3, 336, 336)


def test_more_tokens_are_more_images() -> None:
    found = subject_named(str(checkpoint()), tokens=1152, dtype="bfloat16")
    assert int((found.inputs["input_ids"] == IMAGE).sum()) == 1152
    assert found.inputs["pixel_values"].shape == (2, 3, 336, 336)
    assert found.inputs["pixel_values"].dtype == torch.bfloat16


def animation(path: Path, frames: int) -> Path:
    pictures = [Image.new("RGB", (96, 96), (20 * number, 90, 200 - 20 * number)) for number in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=200)
    return path


def test_a_video_is_looked_at_as_ask_does(tmp_path: Path) -> None:
    file, said = animation(tmp_path / "a.gif", 10), list[str]()
    found = subject_named("embedded-video", image=str(file), sampling=Sampling(frames=8), tell=said.append)
    assert found.image == "a.gif"
    assert found.inputs["pixel_values_videos"].shape[1] == 8
    result = profile(found.model, found.inputs, keep=64, new_tokens=2, repeats=1, warmup=0)
    assert result.image_tokens == (520,)
    assert result.counts["keep 64"][1] == 64
    pictures = subject_named("embedded", image=str(file), sampling=Sampling(frames=2), tell=said.append)
    assert pictures.inputs["pixel_values"].shape[0] == 2
    assert "this model takes no videos: 2 frames are asked about" in " ".join(said)


@pytest.mark.parametrize(("sampling", "pictures"), [(None, 8), (Sampling(), 8), (Sampling(frames=9), 9)])
def test_of_a_video_as_pictures_there_are_eight_unless_more_are_asked_for(
    sampling: Sampling | None, pictures: int, tmp_path: Path
) -> None:
    found = subject_named("embedded", image=str(animation(tmp_path / "a.gif", 24)), sampling=sampling)
    assert found.inputs["pixel_values"].shape[0] == pictures


def test_a_shape_gets_random_weights() -> None:
    found = subject_named("tiny", tokens=1152, device="cpu")
    assert found.name == "tiny (random weights)"
    assert found.inputs["input_ids"].shape == (1, 1152 + 60)
    assert found.inputs["pixel_values"].dtype == torch.float32


def test_weights_that_do_not_fit_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_free_bytes", lambda device: 20 * 10**9)
    with pytest.raises(InputError, match=r"llava-1\.5-13b take 53\.4 GB in float32, 20\.0 GB are free on cpu"):
        subject_named("llava-1.5-13b", device="cpu")
    with pytest.raises(InputError, match=r"26\.7 GB in bfloat16"):
        subject_named("llava-1.5-13b", device="cpu", dtype="bfloat16")


def test_refusals() -> None:
    with pytest.raises(
        InputError, match=r"did you mean 'llava-1\.5-7b'\? Known: embedded, embedded-video, llava-1\.5-13b"
    ):
        subject_named("llava-1.5-8b")
    with pytest.raises(InputError, match=r"576 visual tokens in .*; 600 is no multiple"):
        subject_named(str(checkpoint()), tokens=600)
    with pytest.raises(PlanError, match="576 visual tokens each; 100 is no multiple"):
        subject_named("tiny", tokens=100, device="cpu")
    with pytest.raises(InputError, match=r"reads a random image, not 'cup\.png'"):
        subject_named("tiny", image="cup.png")
    with pytest.raises(InputError, match="reads a random image, not frames of a video"):
        subject_named("tiny", sampling=Sampling(frames=4))
    with pytest.raises(InputError, match=r"no image at 'cup\.png'"):
        subject_named(str(checkpoint()), image="cup.png")
