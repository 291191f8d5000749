"""A launcher for VLMEvalKit, which has no entry points: run it inside a checkout of that repository.

    python -m vlm_pruner.evaluation.vlmevalkit --pretrained FOLDER --method vlm-pruner --keep 0.25 \\
        -- --data MMBench_DEV_EN --work-dir out

What stands behind `--` goes to its `run.py`. Nothing of VLMEvalKit is changed but one entry of its dict of models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking.models import moved
from vlm_pruner.asking.opening import open_image
from vlm_pruner.asking.prompts import prompt_text, read_prompt
from vlm_pruner.engine import prune
from vlm_pruner.errors import BackendUnavailableError, InputError, VlmPrunerError
from vlm_pruner.evaluation.lmms.arguments import open_with, treatment

__all__ = ["NAME", "PrunedHF", "main", "register"]

NAME = "vlm_pruner"
"""What `run.py --model` calls it."""


class PrunedHF:
    """A pruned model as VLMEvalKit asks it: pictures and texts in, an answer out."""

    is_api = False
    INTERLEAVE = True

    def __init__(
        self,
        pretrained: str = "embedded",
        method: str = "none",
        keep: Any = None,
        layer: Any = None,
        plan: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_pixels: Any = None,
        max_new_tokens: int = 512,
        **params: Any,
    ) -> None:
        """The arguments are those of the lmms-eval model.

        Raises:
            VlmPrunerError: a model, a plan or an argument that cannot be had.
        """
        self.loaded = open_with(pretrained, None, max_pixels, device=device, dtype=dtype)
        self.how = treatment(self.loaded, method=method, keep=keep, layer=layer, plan=plan, params=params)
        self.max_new_tokens = max_new_tokens
        self.report: Any = None  # of the last answer
        self.dump_image_func: Callable[..., Any] | None = None

    def use_custom_prompt(self, dataset: str | None) -> bool:
        """Prompts are those of the benchmark."""
        return False

    def set_dump_image(self, dump_image: Callable[..., Any]) -> None:
        """VLMEvalKit's way to write pictures to the disk."""
        self.dump_image_func = dump_image

    def dump_image(self, line: Any, dataset: str) -> Any:
        """The pictures of a line as files."""
        if self.dump_image_func is None:
            raise InputError("VLMEvalKit did not say how pictures are written: call set_dump_image first")
        return self.dump_image_func(line)

    def generate(self, message: str | Sequence[Any], dataset: str | None = None) -> str:
        """The answer to a message: texts, and files of pictures, which are shown before the words.

        Raises:
            InputError: a video, or a picture that cannot be read.
        """
        parts = [message] if isinstance(message, str) else list(message)
        items = [{"type": "text", "value": part} if isinstance(part, str) else part for part in parts]
        if other := [item["type"] for item in items if item["type"] not in ("image", "text")]:
            raise InputError(f"only pictures and texts are read, not {other[0]!r}")
        images = [self.how.apply(open_image(item["value"])) for item in items if item["type"] == "image"]
        question = "\n".join(item["value"] for item in items if item["type"] == "text")
        model, processor = self.loaded.model, self.loaded.processor
        form = adapter_for(model.config.model_type).prompt
        inputs = moved(
            model, read_prompt(processor, prompt_text(processor, question, ["image"] * len(images), form), images)
        )
        with torch.inference_mode(), prune(model, self.how.plan) as session:
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        self.report = session.report
        return str(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def register(registry: MutableMapping[str, Any], **arguments: Any) -> None:
    """Put the model into VLMEvalKit's `supported_VLM` under `NAME`; it is made when VLMEvalKit asks for it."""
    registry[NAME] = partial(PrunedHF, **arguments)


def main(words: Sequence[str]) -> int:
    """Register, and hand on to VLMEvalKit's own `run.py`.

    Returns:
        The exit code: 2 with one line where something cannot be had.
    """
    own, theirs = list(words), []
    if "--" in own:
        at = own.index("--")
        own, theirs = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("pretrained", "method", "keep", "layer", "plan", "device", "dtype", "max-pixels"):
        parser.add_argument(f"--{name}")
    given = {name: value for name, value in vars(parser.parse_args(own)).items() if value is not None}
    try:
        sys.path.insert(0, "")
        register(_registry(), **given)
        sys.argv = ["run.py", "--model", NAME, *theirs]
        import_module("run").main()
    except VlmPrunerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _registry() -> MutableMapping[str, Any]:
    try:
        registry: MutableMapping[str, Any] = import_module("vlmeval.config").supported_VLM
    except ImportError as error:
        raise BackendUnavailableError(
            "VLMEvalKit is not here: clone github.com/open-compass/VLMEvalKit, and run this in its folder"
        ) from error
    return registry


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
