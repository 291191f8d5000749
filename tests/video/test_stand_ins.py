"""What stands in for processors where torchvision is missing reads pictures and videos as the stock ones do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.checkpoints import checkpoint
from tests.support.stand_ins import FAMILIES, both, compare, same
from tests.support.vision import needs_torchvision
from tests.video.test_readers import CAPPED

from vlm_pruner.video.pixels import cropped, patches

pytestmark = needs_torchvision
COUNT = 50


@pytest.mark.parametrize("name", FAMILIES)
def test_bit_by_bit_on_random_sizes_counts_and_rates(name: str) -> None:
    assert compare(name, COUNT) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2"])
@pytest.mark.parametrize("name", FAMILIES)
def test_bit_by_bit_whatever_the_processor_can(name: str, capability: str) -> None:
    command = [sys.executable, "-m", "tests.support.stand_ins", name, str(COUNT)]
    done = subprocess.run(
        command, env=os.environ | {"ATEN_CPU_CAPABILITY": capability}, capture_output=True, text=True, check=True
    )
    used, alike = done.stdout.split()[-2:]
    assert used == capability.upper()
    assert int(alike) == COUNT


@pytest.mark.parametrize("name", FAMILIES)
def test_several_pictures_and_videos_and_none(name: str) -> None:
    random = np.random.default_rng(1)
    stock, own = both(name)
    pictures = [Image.fromarray(random.integers(0, 256, (40 + 9 * k, 50, 3), np.uint8)) for k in range(3)]
    videos = [torch.from_numpy(random.integers(0, 256, (2, 3, 60, 44 + k), np.uint8)) for k in range(2)]
    times = [{"total_num_frames": len(v), "fps": 2.0, "frames_indices": list(range(len(v)))} for v in videos]
    for shown, clips in ((pictures, videos), (pictures, []), ([], videos), ([], [])):
        text = stock.image_token * len(shown) + "a" + stock.video_token * len(clips)
        made = []
        for processor in (stock, own):
            told: dict[str, Any] = {"images": shown} if shown else {}
            if clips:
                told |= {"videos": clips, "video_metadata": [dict(t) for t in times], "do_sample_frames": False}
            made.append(processor(text=[text], return_tensors="pt", **told))
        assert same(*made)


@pytest.mark.parametrize("name", CAPPED)
def test_the_stock_processors_bound_frames_alike(name: str) -> None:
    import transformers

    fields, shape, size = dict(CAPPED[name][0]), CAPPED[name][1], CAPPED[name][2]
    kind = "Qwen3VLVideoProcessor" if fields.pop("together", False) else "Qwen2VLVideoProcessor"
    stock = getattr(transformers, kind)(**{"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, **fields})
    video = torch.zeros(shape[0], 3, *shape[1:], dtype=torch.uint8)
    grid = stock([video], do_sample_frames=False, return_tensors="pt")["video_grid_thw"][0].tolist()
    assert (grid[1] * stock.patch_size, grid[2] * stock.patch_size) == size


@pytest.mark.parametrize("name", FAMILIES)
def test_the_chat_template_is_the_same(name: str) -> None:
    stock, own = both(name)
    content = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "what"}]
    asked = [{"role": "user", "content": content}]
    assert stock.apply_chat_template(asked, add_generation_prompt=True) == own.apply_chat_template(
        asked, add_generation_prompt=True
    )


WITHOUT = """
import sys
sys.modules["torchvision"] = None  # as if it were not installed
from PIL import Image
from vlm_pruner.asking import open_model
loaded = open_model(sys.argv[1])
made = loaded.inputs("what", Image.new("RGB", (60, 40), (200, 30, 30)))
print(type(loaded.processor).__name__, type(loaded.processor.image_processor).__name__, made["input_ids"].shape[1])
"""


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_opens_without_torchvision(name: str) -> None:
    command = [sys.executable, "-c", WITHOUT, str(checkpoint(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    title, pictures, length = done.stdout.split()
    assert title == type(both(name)[0]).__name__
    assert pictures in ("QwenPictures", "OnevisionPictures")
    assert int(length) > 6


FITTING = """
import vlm_pruner.adapters, transformers, torch
from transformers.image_utils import is_torchvision_available
print(is_torchvision_available(), transformers.Qwen2VLVideoProcessor.__name__)
"""


def test_a_torchvision_that_was_built_for_another_torch_is_read_with(tmp_path: Path) -> None:
    """The wheel of the registry is for CUDA: beside a torch for the CPU its compiled part does not load."""
    import torchvision

    home = tmp_path / "torchvision"
    home.symlink_to(Path(torchvision.__file__).parent)
    command = [sys.executable, "-c", FITTING]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "Qwen2VLVideoProcessor"]


def test_the_middle_of_a_frame_and_black_around_a_small_one() -> None:
    from torchvision.transforms.v2 import functional as stock

    frames = torch.randint(0, 256, (2, 3, 7, 10), dtype=torch.uint8)
    assert torch.equal(cropped(frames, 5, 5), stock.center_crop(frames, [5, 5]))
    assert cropped(frames, 9, 9).shape == (2, 3, 9, 9)


def test_patches_of_an_odd_number_of_frames() -> None:
    frames = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    made, grid = patches(frames, 4, 2, 2)
    assert (made.shape, grid) == ((8, 96), (2, 2, 2))
    assert made[4:].unique().tolist() == [2.0]
