"""Models by name: the embedded one, checkpoint folders, ids of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking.loading import Loading, open_device
from vlm_pruner.asking.reader import Reader, read_parts, untrusted
from vlm_pruner.asking.videos import Shown
from vlm_pruner.engine import plan_for
from vlm_pruner.errors import InputError, VlmPrunerError, first_line, missing_package
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import PrunePlan

__all__ = ["EMBEDDED", "EMBEDDED_VIDEO", "Loaded", "moved", "open_model", "open_reader", "source_of"]

EMBEDDED = "embedded"
"""The name of the small model inside the package."""
EMBEDDED_VIDEO = "embedded-video"
"""The name of its form for videos."""


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
        reader = read_parts(folder, loading)  # first: it costs nothing to find it missing
        return Loaded(name, loading.load(folder, reader.config), reader.processor)


def open_reader(name: str = EMBEDDED, **options: Any) -> Reader:
    """What reads for the model that `open_model` opens with the same arguments.

    Raises:
        InputError, UnsupportedModelError, BackendUnavailableError: as of `open_model`.
    """
    folder, loading = source_of(name, Loading(**options))
    with _told(name):
        return read_parts(folder, loading)


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
        raise InputError(
            f"{name!r} is a folder on this machine: only a model on the hub has a revision {loading.revision!r}"
        )
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
        needed = missing_package(f"model {name!r}", error) or untrusted(name, error)
        raise needed or InputError(f"model {name!r} cannot be loaded: {first_line(error)}") from error
