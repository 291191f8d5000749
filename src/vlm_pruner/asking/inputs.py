"""From what people type to what a model reads: image files, model names, questions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from vlm_pruner.adapters import adapter_for
from vlm_pruner.errors import InputError

__all__ = ["DEMO_IMAGE", "EMBEDDED", "Loaded", "check_size", "open_device", "open_image", "open_model", "prompt_inputs"]

EMBEDDED = "embedded"
"""The name of the small model inside the package."""

DEMO_IMAGE = "demo"
"""The name of the image inside the package, where no file is called that."""

MAX_PIXELS = 64_000_000
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer, and its processor."""

    name: str
    model: Any
    processor: Any

    @property
    def layers(self) -> int:
        """Decoder layers of the language model."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    def inputs(self, question: str, image: Image.Image | Sequence[Image.Image] | None) -> dict[str, Any]:
        """`prompt_inputs` on the model's device and in its dtype.

        Raises:
            InputError: as `prompt_inputs`.
        """
        ready = {k: v.to(self.model.device) for k, v in prompt_inputs(self.processor, question, image).items()}
        if "pixel_values" in ready:
            ready["pixel_values"] = ready["pixel_values"].to(self.model.dtype)
        return ready


def open_image(path: str | Path) -> Image.Image:
    """The first frame of an image file as upright RGB; "demo" is the image that comes with the package.

    Raises:
        InputError: no such file, not an image, a damaged one, or one of more than 64 megapixels.
    """
    file = Path(path)
    if str(path) == DEMO_IMAGE and not file.exists():
        from vlm_pruner.scenes import DEMO

        file = DEMO
    if not file.exists():
        near = get_close_matches(file.name, [p.name for p in file.parent.glob("*")], n=1, cutoff=0.75)
        raise InputError(
            f"no image at {str(path)!r}" + (f"; did you mean {str(file.parent / near[0])!r}?" if near else "")
        )
    if file.is_dir():
        raise InputError(f"{str(path)!r} is a folder, not an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                check_size(image)
                return ImageOps.exif_transpose(image).convert("RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{str(path)!r} is too large: {error}") from error
    except Exception as error:  # Pillow's readers raise whatever their formats do: OSError, SyntaxError, struct.error
        raise InputError(f"{str(path)!r} is not a readable image: {error}") from error


def check_size(image: Image.Image) -> None:
    """Refuse an image that would take gigabytes to decode.

    Raises:
        InputError: more than 64 megapixels.
    """
    if image.width * image.height > MAX_PIXELS:
        raise InputError(
            f"the image has {image.width} x {image.height} = {image.width * image.height / 1e6:.0f} megapixels; "
            f"at most {MAX_PIXELS / 1e6:.0f} are read"
        )


def open_model(name: str = EMBEDDED, *, device: str = "auto", dtype: str = "auto") -> Loaded:
    """The embedded model, a checkpoint folder, or a model of the Hugging Face hub by its id.

    Args:
        device: "auto" is CUDA where there is one, else the CPU; else whatever torch calls it.
        dtype: "auto" is the checkpoint's own; or float32, bfloat16, float16.

    Raises:
        InputError: no such model, device or dtype.
        UnsupportedModelError: a family that cannot be pruned; said before its weights are loaded.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; known: auto, {', '.join(DTYPES)}")
    place = open_device(device)
    if name == EMBEDDED:
        from vlm_pruner.models import load_embedded

        model, processor = load_embedded()
        if dtype != "auto":
            model = model.to(DTYPES[dtype])
    else:
        model, processor = _from_pretrained(name, dtype)
    return Loaded(name, model.to(place).eval(), processor)


def open_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU.

    Raises:
        InputError: no such device, or none that works here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {_first_line(error)}") from error
    return device


def _from_pretrained(name: str, dtype: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    if not Path(name).exists() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        hint = f"; did you mean {EMBEDDED!r}?" if get_close_matches(name, [EMBEDDED]) else "."
        raise InputError(
            f"no model {name!r}{hint} A model is {EMBEDDED!r}, a checkpoint folder, or a hub id like 'owner/name'"
        )
    try:
        adapter_for(AutoConfig.from_pretrained(name).model_type)
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=DTYPES.get(dtype, "auto"))
        return model, AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"model {name!r} cannot be loaded: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """The first line of a message; one that only announces a list goes on with it."""
    first, *rest = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join([first, *rest])[:240] if first.endswith(":") else first


def prompt_inputs(processor: Any, question: str, image: Image.Image | Sequence[Image.Image] | None) -> dict[str, Any]:
    """What `generate` takes for one question about one image, about several, or about none.

    The processor's chat template is used where it has one, else LLaVA's own prompt order.

    Raises:
        InputError: an empty question, or one that contains the placeholder of an image.
    """
    token = getattr(processor, "image_token", "<image>")
    if not question.strip():
        raise InputError("the question is empty")
    if token in question:
        raise InputError(f"the question contains the image placeholder {token!r}; give the image itself instead")
    shown = [image] if isinstance(image, Image.Image) else list(image or ())
    if getattr(processor, "chat_template", None):
        parts = [{"type": "image"} for _ in shown]
        content = [*parts, {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    else:
        text = f"USER: {(token + chr(10)) * len(shown)}{question} ASSISTANT:"
    pictures = {"images": shown} if shown else {}
    return dict(processor(text=[text], return_tensors="pt", **pictures))
