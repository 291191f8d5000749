"""Pictures of odd shapes: one line that names the limit, and never gigabytes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from PIL import Image
from tests.support.checkpoints import checkpoint
from tests.support.processors import EYES
from tests.support.vision import needs_torchvision
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from vlm_pruner.asking import open_model
from vlm_pruner.asking.shapes import check_shape
from vlm_pruner.errors import InputError
from vlm_pruner.web.controls import row_of
from vlm_pruner.web.desk import Desk
from vlm_pruner.web.gallery import read_upload
from vlm_pruner.web.service import Service
from vlm_pruner.web.settings import UPLOADED, Choice

PROCESSORS = sorted(
    {eye.processor if eye.words_of is None else f"{eye.processor}ImageProcessor" for eye in EYES.values()}
)
SHAPES = [(1, 12_000), (12_000, 1), (20, 65_535), (576, 45_000), (5099, 5099)]


def blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 30, 30))


@pytest.mark.parametrize(
    ("size", "grown"),
    [((1, 12_000), "336 x 4032000"), ((12_000, 1), "4032000 x 336"), ((3, 6000), "336 x 672000"), ((1, 500), "")],
)
def test_the_limit_looks_at_what_a_processor_makes_of_a_picture(size: tuple[int, int], grown: str) -> None:
    crop = {"height": 336, "width": 336}
    processor = SimpleNamespace(image_processor=CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=crop))
    if not grown:
        check_shape(processor, blank(*size))
        return
    with pytest.raises(InputError, match=rf"its processor makes {grown} = \d+ megapixels of it; at most 64 are read"):
        check_shape(processor, blank(*size))


def test_a_processor_that_pads_to_a_square_makes_one_of_the_longer_side() -> None:
    processor = SimpleNamespace(image_processor=LlavaImageProcessorPil(do_pad=True))
    with pytest.raises(InputError, match=r"makes 12000 x 12000 = 144 megapixels"):
        check_shape(processor, blank(1, 12_000))
    check_shape(processor, blank(400, 7000))


@needs_torchvision[0]
@needs_torchvision[1]
def test_a_processor_that_pads_thin_pictures_alone_is_known_too() -> None:
    """10 GB for a picture of 2 x 60,000 pixels."""
    processor = SimpleNamespace(image_processor=transformers.Step3p7ImageProcessor())
    with pytest.raises(InputError, match=r"makes 12000 x 12000 = 144 megapixels"):
        check_shape(processor, blank(1, 12_000))
    check_shape(processor, blank(40, 12_000))


@needs_torchvision[0]
@needs_torchvision[1]
@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("qwen2_5_vl", (1200, 4), "absolute aspect ratio must be smaller than 200, got 300"),
        ("qwen2_5_vl", (4, 1200), "absolute aspect ratio must be smaller than 200, got 300"),
        ("qwen3_vl", (1, 12_000), "absolute aspect ratio must be smaller than 200, got"),
        ("llava-pixtral", (1, 60), "one side may be at most 56 times as long as the other"),
        ("mistral3", (1200, 4), "one side may be at most 56 times as long as the other"),
    ],
)
def test_a_shape_that_a_processor_refuses_is_one_line_with_the_limit(
    name: str, size: tuple[int, int], said: str, tmp_path: Path
) -> None:
    blank(*size).save(tmp_path / "thin.png")
    loaded = open_model(str(checkpoint(name)))
    picture = read_upload(tmp_path / "thin.png")
    with pytest.raises(InputError) as caught:
        loaded.inputs("What?", [blank(40, 40), picture.image])
    assert f"refuses 'thin.png' ({picture.image.width} x {picture.image.height} pixels): {said}" in str(caught.value)
    assert "\n" not in str(caught.value)
    frames = Desk(Service(loaded)).run("ann", UPLOADED, picture, "What?", row_of([Choice("grid", 50)]), 1)
    assert said in list(frames)[-1].alert


@needs_torchvision[0]
@needs_torchvision[1]
def test_a_shape_at_the_limit_is_answered() -> None:
    for name, size in (("llava-pixtral", (1, 56)), ("qwen2_5_vl", (199, 1))):
        assert "pixel_values" in open_model(str(checkpoint(name))).inputs("What?", blank(*size))


@needs_torchvision[0]
@needs_torchvision[1]
@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSORS)
def test_no_stock_processor_makes_a_gigabyte_of_a_shape(name: str) -> None:
    """With the settings that it has by default; each shape in a process of its own."""
    processor: Any = getattr(transformers, name)()
    for shape in SHAPES:
        assert _megabytes(SimpleNamespace(image_processor=processor), shape) < 900, shape


def _megabytes(processor: Any, shape: tuple[int, int]) -> int:
    """What a picture and its processing take at their peak."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak of before
            before, picture = _memory("VmRSS"), blank(*shape)
            try:
                check_shape(processor, picture)
                processor.image_processor(images=[picture], return_tensors="pt")
            except (InputError, RuntimeError, ValueError):
                pass  # refused, or what the processor itself stumbles over
            os.write(theirs, str(_memory("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours) as answer:
        return int(answer.read())


def _memory(kind: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) // 1000
