"""What makes a model's inputs: its processor and its configuration, without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_pruner.adapters import adapter_for
from vlm_pruner.adapters.obstacles import obstacle
from vlm_pruner.adapters.refused import REASONS
from vlm_pruner.asking.loading import Loading
from vlm_pruner.asking.prompts import check_question, conversation_text, prompt_inputs, read_prompt
from vlm_pruner.asking.videos import Shown
from vlm_pruner.errors import InputError, UnsupportedModelError, first_line, missing_package
from vlm_pruner.video import Clip
from vlm_pruner.video.stand_ins import stand_in

__all__ = ["Reader", "read_parts", "untrusted"]

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
            behind = f", the answer of up to {answer} included" if length <= places else ""
            raise InputError(f"the prompt has {length} tokens; this model reads at most {places}{behind}")
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
            from vlm_pruner.models.renamed import renamed

            together = int(getattr(self.processor.video_processor, "temporal_patch_size", None) or 1)
            times = 1 + -len(shown) % together
            said = [f"this model takes {together} frames at a time: the last of {len(shown)} is shown {times} times"]
            other = renamed(self.config.architectures)
            return shown, said * (times > 1) + ([other.videos] if other is not None else [])
        clip = shown if sampled else shown.thinned(PICTURES)
        return clip, [f"this model takes no videos: {len(clip)} frames are asked about, each as a picture of its own"]

    def spread(self, shown: Shown | Sequence[Shown] | None) -> list[Shown]:
        """What stands in a prompt, piece by piece: pictures, and videos where the model takes them."""
        every = [shown] if isinstance(shown, Image.Image | Clip) else list(shown or ())
        apart = ([one] if isinstance(one, Image.Image) or self.takes_videos else one.pictures() for one in every)
        return [piece for pieces in apart for piece in pieces]


def read_parts(folder: str, loading: Loading) -> Reader:
    """The processor and the configuration of a checkpoint.

    Raises:
        UnsupportedModelError: a family that cannot be pruned.
        BackendUnavailableError: the processor needs a package that is not installed.
        InputError: there is no processor.
        Exception: whatever transformers raises where a checkpoint is damaged.
    """
    from transformers import AutoConfig, PreTrainedConfig

    from vlm_pruner.models.renamed import renamed

    try:
        config = AutoConfig.from_pretrained(folder, **loading.source)
    except ValueError:  # a model_type that transformers does not know
        published, _ = PreTrainedConfig.get_config_dict(folder, **loading.source)
        if (other := renamed(published.get("architectures"))) is None:
            raise
        own = Path(folder, "processor_config.json").is_file()
        source, loading = (folder, loading) if own else (other.processor, Loading())
        config = other.config(published)
        return Reader(_processor(source, loading, config.model_type), config)
    _check_family(config)
    return Reader(_processor(folder, loading, config.model_type), config)


def untrusted(name: str, error: BaseException) -> InputError | None:
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
        needed = missing_package(f"the processor of model {name!r}", error) or untrusted(name, error)
        raise needed or InputError(f"the processor of {name!r} cannot be loaded: {first_line(error)}") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise InputError(
            f"{name!r} has no processor of pictures and words, only a {type(processor).__name__}: is there a "
            "preprocessor_config.json or processor_config.json?"
        )
    return processor
