"""What the engine relies on in the installed release of transformers, looked up in this one place.

Releases rename things: 5.24 made `past_key_values` of models and layers `cache`. Names are read from the signatures of
the very modules that will be called. What is not found there is refused before anything runs: a missing name never
means "nothing to do", for a pruner that does not see the cache would answer wrongly without a word.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from torch import nn
from transformers import Cache, DynamicCache, cache_utils

from vlm_pruner.errors import UnsupportedModelError

__all__ = ["NEWEST", "cache_in", "cache_name", "check_release", "given_cache", "unseen", "warn_if_newer"]

NEWEST = (5, 24)  # the newest minor release that the tests have run; the range in pyproject.toml ends there
INSTALLED = version("transformers")

_CACHE = ("cache", "past_key_values")  # since 5.24, and before; the first also understands the second
_OF_LAYERS = ("hidden_states", "attention_mask")
_OF_MODELS = ("input_ids", "inputs_embeds", "attention_mask")
_OF_HEADS = ("labels",)
_OF_CACHES: dict[type, tuple[str, ...]] = {
    Cache: ("update", "get_seq_length", "get_mask_sizes", "crop", "reorder_cache", "reset"),
    DynamicCache: ("batch_repeat_interleave", "batch_select_indices"),
    cache_utils.CacheLayerMixin: (
        "get_mask_sizes", "get_seq_length", "lazy_initialization", "reorder_cache", "reset", "update",
    ),
    cache_utils.DynamicLayer: ("batch_repeat_interleave", "batch_select_indices", "crop"),
}  # fmt: skip


def _parameters(module: nn.Module) -> Mapping[str, Any]:
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    return inspect.signature(module.forward).parameters


def cache_name(module: nn.Module) -> str:
    """The argument by which `module` takes the cache.

    Raises:
        UnsupportedModelError: it has none of the names that are known.
    """
    for name in _CACHE:
        if name in _parameters(module):
            return name
    raise UnsupportedModelError(
        f"{type(module).__name__} of transformers {INSTALLED} takes no cache under a name that is known "
        f"({', '.join(_CACHE)}): it cannot be pruned"
    )


def given_cache(arguments: Mapping[str, Any], name: str) -> Any:
    """The cache among the arguments of a model that takes it as `name`; a newer release still takes the older name."""
    known = _CACHE if name == _CACHE[0] else (name,)
    return next((arguments[n] for n in known if arguments.get(n) is not None), None)


def cache_in(output: Any) -> Any:
    """The cache in what a model or decoder returns, whatever it is called there; None if there is none."""
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else ()
    return next((value for value in values if isinstance(value, Cache)), None)


def check_release(
    model: nn.Module, base: nn.Module, text: nn.Module, layers: nn.ModuleList, placeholders: Mapping[Any, int]
) -> None:
    """Raise where this release has other names than those that the engine reads.

    Args:
        model: with its head; `base` without it; `text` its decoder.
        placeholders: the model's token ids that stand for visual tokens, by modality.

    Raises:
        UnsupportedModelError: the first name that is missing.
    """
    for layer in {type(layer): layer for layer in layers}.values():
        _need(layer, _parameters(layer), _OF_LAYERS)
        cache_name(layer)
    _need(base, _parameters(base), _OF_MODELS)
    if model is not base:
        _need(model, _parameters(model), _OF_HEADS)
    cache_name(base)
    for owner, names in _OF_CACHES.items():
        _need(owner, dir(owner), names)
    if "image" in placeholders:
        _need(base, dir(base), ("get_image_features",))
    if "deepstack_visual_embeds" in _parameters(text):
        _need(text, dir(text), ("_deepstack_process",))


def _need(owner: Any, there: Any, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        what = owner.__name__ if isinstance(owner, type) else type(owner).__name__
        raise UnsupportedModelError(
            f"{what} of transformers {INSTALLED} has no {', '.join(missing)}: this version of vlm-pruner does not know "
            "how to prune with it"
        )


def unseen(what: str) -> UnsupportedModelError:
    """The error for a forward with pictures in which `what` did not come to pass."""
    return UnsupportedModelError(
        f"{what}. The answer would be wrong or unpruned, so there is none. transformers {INSTALLED} is installed; "
        f"vlm-pruner is tested with 5.19 to {_dotted(NEWEST)}"
    )


@functools.cache
def warn_if_newer() -> None:
    """Say once that the installed release of transformers is newer than any that was tested."""
    major, minor = (int(part) for part in INSTALLED.split(".")[:2])
    if (major, minor) > NEWEST:
        warnings.warn(
            f"transformers {INSTALLED} is newer than any release that this version of vlm-pruner was tested with (up "
            f"to {_dotted(NEWEST)}). What it no longer finds there it refuses; `pip install 'transformers<"
            f"{NEWEST[0]}.{NEWEST[1] + 1}'` installs a tested one",
            UserWarning,
            stacklevel=4,
        )


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(map(str, parts))
