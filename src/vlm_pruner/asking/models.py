"""Models by name, and what they read: the embedded one, checkpoint folders, ids of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from vlm_pruner.adapters import adapter_for
from vlm_pruner.adapters.obstacles import obstacle
from vlm_pruner.adapters.refused import REASONS
from vlm_pruner.asking.loading import Loading, open_device
from vlm_pruner.asking.prompts import check_question, conversation_text, prompt_inputs, read_prompt
from vlm_pruner.asking.videos import Shown
from vlm_pruner.engine import plan_for
from vlm_pruner.errors import InputError, UnsupportedModelError, VlmPrunerError, first_line, missing_package
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import PrunePlan
from vlm_pruner.video import Clip
from vlm_pruner.video.stand_ins import stand_in

__all__ = ["EMBEDDED", "EMBEDDED_VIDEO", "Loaded", "Reader", "moved", "open_model", "open_reader", "source_of"]

EMBEDDED = "embedded"
"""The name of the small model inside the package."""
EMBEDDED_VIDEO = "embedded-video"
"""The name of its form for videos."""

PICTURES = 8  # frames for a model that takes no videos


@dataclass(frozen=True)
class Reader:
    """What makes a model's inputs of questions and pictures: a model's processor and configuration, no weights."""

    processor: Any
    config: Any

    def inputs(self, question: str, shown: Shown | Sequence[Shown] | None, answer: int = 0) -> dict[str, Any]:
        """`prompt_inputs`.

        Args:
            shown: a picture, a video, several of them in the order of the prompt, or nothing.
            answer: tokens for which there must be room behind the prompt.

        Raises:
            InputError: as `prompt_inputs`, or more tokens than the model has places for.
        """
        form = adapter_for(self.config.model_type).prompt
        return self.fitting(prompt_inputs(self.processor, question, self.spread(shown), form=form), answer)

    def conversation(
        self, messages: Sequence[Mapping[str, Any]], images: Sequence[Image.Image], answer: int = 0
    ) -> dict[str, Any]:
        """As `inputs`, of a whole conversation: see `conversation_text`.

        Args:
            images: the pictures of all messages, in their order.

        Raises:
            InputError: as `inputs`, of any text in it.
        """
        for message in messages:
            for part in message["content"]:
                if part["type"] == "text":
                    check_question(self.processor, part["text"])
        text = conversation_text(self.processor, messages, adapter_for(self.config.model_type).prompt)
        return self.fitting(read_prompt(self.processor, text, images), answer)

    def fitting(self, ready: dict[str, Any], answer: int) -> dict[str, Any]:
        """What the model reads, if there is room for it and an answer of so many tokens.

        Raises:
            InputError: there is none.
        """
        length = ready["input_ids"].shape[1]
        places = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        if places is not None and length + answer > places:
            behind = f", and an answer of up to {answer} has no room behind it" if length <= places else ""
            raise InputError(f"the prompt has {length} tokens; this model has places for {places}{behind}")
        return ready

    @property
    def takes_videos(self) -> bool:
        """False where the frames of a video are shown as pictures."""
        adapter = adapter_for(self.config.model_type)
        return adapter.takes_videos(self.config) and getattr(self.processor, "video_processor", None) is not None

    def fitted(self, shown: Shown, sampled: bool) -> tuple[Shown, list[str]]:
        """What is asked about, and what a person should know of it.

        Args:
            sampled: somebody said how many frames. Otherwise 8 at most are shown to a model that takes no videos.
        """
        if not isinstance(shown, Clip):
            return shown, []
        if self.takes_videos:
            together = int(getattr(self.processor.video_processor, "temporal_patch_size", None) or 1)
            times = 1 + -len(shown) % together
            said = f"this model takes {together} frames at a time: the last of {len(shown)} is shown {times} times"
            return shown, [said] if times > 1 else []
        clip = shown if sampled else shown.thinned(PICTURES)
        return clip, [f"this model takes no videos: {len(clip)} frames are asked about, each as a picture of its own"]

    def spread(self, shown: Shown | Sequence[Shown] | None) -> list[Shown]:
        """What stands in a prompt, piece by piece: pictures, and videos where the model takes them."""
        every = [shown] if isinstance(shown, Image.Image | Clip) else list(shown or ())
        apart = ([one] if isinstance(one, Image.Image) or self.takes_videos else one.pictures() for one in every)
        return [piece for pieces in apart for piece in pieces]


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

    @property
    def reader(self) -> Reader:
        """What makes its inputs."""
        return Reader(self.processor, self.model.config)

    def plan(self, method: PrunePlan | PruningMethod | str, *given: Any, **named: Any) -> PrunePlan:
        """The plan that pruning this model with these arguments carries out: `vlm_pruner.plan_for`, errors too."""
        return plan_for(self.model, method, *given, **named)

    def inputs(self, question: str, shown: Shown | Sequence[Shown] | None, answer: int = 0) -> dict[str, Any]:
        """`Reader.inputs` on the model's device, floating tensors in its dtype.

        Args:
            shown: a picture, a video, several of them in the order of the prompt, or nothing. Where a model takes no
                videos, their frames are pictures, one after the other.
            answer: tokens for which there must be room behind the prompt.

        Raises:
            InputError: as `Reader.inputs`.
        """
        return moved(self.model, self.reader.inputs(question, shown, answer))

    def visual_tokens(self, inputs: Mapping[str, Any]) -> int:
        """Tokens of all pictures and videos in what `inputs` made."""
        kinds = adapter_for(self.model.config.model_type).placeholders(self.model.base_model.config)
        return sum(int((inputs["input_ids"] == token).sum()) for token in set(kinds.values()))


def moved(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a processor gave, on the model's device, and whatever is no whole number in its dtype."""

    def one(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(model.device, model.dtype if value.is_floating_point() else None)

    return {name: one(value) for name, value in inputs.items()}


def open_model(name: str = EMBEDDED, *, device: str = "auto", dtype: str = "auto", **options: Any) -> Loaded:
    """The embedded model, a checkpoint folder, or a model of the Hugging Face hub by its id.

    Args:
        device: "auto" is CUDA where there is one, else the CPU; else whatever torch calls it.
        dtype: "auto" is the checkpoint's own; or float32, bfloat16, float16.
        options: the other fields of `Loading`: revision, attention, device_map, quantize, trust_remote_code.

    Raises:
        InputError: no such model, device, dtype or option.
        UnsupportedModelError: a family that cannot be pruned; said before its weights are loaded.
        BackendUnavailableError: its processor or its weights need a package that is not installed.
    """
    loading = Loading(device, dtype, **options)
    open_device(device)  # before anything is read
    folder, loading = source_of(name, loading)
    with _told(name):
        reader = _open_reader(folder, loading)  # first: it costs nothing to find it missing
        return Loaded(name, loading.load(folder, reader.config), reader.processor)


def open_reader(name: str = EMBEDDED, **options: Any) -> Reader:
    """What reads for the model that `open_model` opens with the same arguments.

    Raises:
        InputError, UnsupportedModelError, BackendUnavailableError: as of `open_model`.
    """
    folder, loading = source_of(name, Loading(**options))
    with _told(name):
        return _open_reader(folder, loading)


def source_of(name: str, loading: Loading) -> tuple[str, Loading]:
    """What `from_pretrained` calls the model, and how it is loaded.

    Raises:
        InputError: no such model or revision.
    """
    here = Path(name).exists()
    inside = name in (EMBEDDED, EMBEDDED_VIDEO)
    if inside:
        from vlm_pruner.models.embedded import embedded_folder

        folder = str(embedded_folder(name == EMBEDDED_VIDEO))
        loading = replace(loading, dtype="float32") if loading.dtype == "auto" else loading
    elif here or (name.count("/") == 1 and not name.startswith((".", "/", "~"))):
        folder = name
    else:
        close = get_close_matches(name, [EMBEDDED, EMBEDDED_VIDEO])
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise InputError(
            f"no model {name!r}{hint} A model is {EMBEDDED!r}, {EMBEDDED_VIDEO!r}, a checkpoint folder, or a hub id "
            "like 'owner/name'"
        )
    if loading.revision is not None and (here or inside):
        raise InputError(f"{name!r} lies on this machine: only a model of the hub has a revision {loading.revision!r}")
    return folder, loading


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Within the block, whatever a checkpoint that is damaged or unknown stumbles over in transformers is one line.

    Raises:
        InputError, UnsupportedModelError, BackendUnavailableError: as of `open_model`.
    """
    try:
        yield
    except VlmPrunerError:
        raise
    except Exception as error:
        needed = missing_package(f"model {name!r}", error) or _untrusted(name, error)
        raise needed or InputError(f"model {name!r} cannot be loaded: {first_line(error)}") from error


def _open_reader(folder: str, loading: Loading) -> Reader:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, **loading.source)
    _check_family(config)
    return Reader(_processor(folder, loading, config.model_type), config)


def _untrusted(name: str, error: BaseException) -> InputError | None:
    """What to say where a checkpoint brings code of its own, which is not run unless somebody says so."""
    if "trust_remote_code=True" not in str(error):
        return None
    return InputError(
        f"model {name!r} brings code of its own, which is not run unless you trust it: look at it, then say "
        "--trust-remote-code (trust_remote_code=True)"
    )


def _check_family(config: Any) -> None:
    """Raise where a family cannot be pruned, with the best reason that is known of it.

    Raises:
        UnsupportedModelError: as it says.
    """
    found = None if config.model_type in REASONS else obstacle(config)
    if found is not None:
        raise UnsupportedModelError(found)
    adapter_for(config.model_type)


def _processor(name: str, loading: Loading, model_type: str) -> Any:
    """The processor of a checkpoint, or what stands in for it where torchvision is missing.

    Raises:
        BackendUnavailableError: it needs a package that is not installed.
        InputError: there is none.
    """
    try:
        from transformers import AutoProcessor

        processor = stand_in(name, model_type, loading.source)
        processor = processor or AutoProcessor.from_pretrained(name, **loading.source)
    except Exception as error:  # processors raise whatever they stumble over
        needed = missing_package(f"the processor of model {name!r}", error) or _untrusted(name, error)
        raise needed or InputError(f"the processor of {name!r} cannot be loaded: {first_line(error)}") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise InputError(
            f"{name!r} has no processor of pictures and words, only a {type(processor).__name__}: is there a "
            "preprocessor_config.json or processor_config.json?"
        )
    return processor
