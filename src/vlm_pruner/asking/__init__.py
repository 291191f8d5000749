"""One question about an image or a video, with and without pruning: what commands, reports and the page share.

Importing this package loads neither torch nor transformers: names are fetched when first used, so that a command can
say within a second that a file is not there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_pruner.asking.answers import Answer, Refused, Run, Times, ask, compare, name_of
    from vlm_pruner.asking.colours import as_shown, notes_of
    from vlm_pruner.asking.entries import Entry, catalogue
    from vlm_pruner.asking.fitting import fits
    from vlm_pruner.asking.loading import Loading, open_device
    from vlm_pruner.asking.models import EMBEDDED, EMBEDDED_VIDEO, Loaded, open_model
    from vlm_pruner.asking.opening import DEMO_IMAGE, VIDEO_FILES, check_size, check_there, open_image
    from vlm_pruner.asking.prompts import prompt_inputs
    from vlm_pruner.asking.videos import Shown, is_video, notes_about, open_shown
    from vlm_pruner.asking.wording import describe, facts, one_token, title_of

_HOMES = {
    "answers": ("Answer", "Refused", "Run", "Times", "ask", "compare", "name_of"),
    "entries": ("Entry", "catalogue"),
    "colours": ("as_shown", "notes_of"),
    "wording": ("describe", "facts", "one_token", "title_of"),
    "fitting": ("fits",),
    "loading": ("Loading", "open_device"),
    "models": ("EMBEDDED", "EMBEDDED_VIDEO", "Loaded", "open_model"),
    "opening": ("DEMO_IMAGE", "VIDEO_FILES", "check_size", "check_there", "open_image"),
    "prompts": ("prompt_inputs",),
    "videos": ("Shown", "is_video", "notes_about", "open_shown"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DEMO_IMAGE",
    "EMBEDDED",
    "EMBEDDED_VIDEO",
    "VIDEO_FILES",
    "Answer",
    "Entry",
    "Loaded",
    "Loading",
    "Refused",
    "Run",
    "Shown",
    "Times",
    "as_shown",
    "ask",
    "catalogue",
    "check_size",
    "check_there",
    "compare",
    "describe",
    "facts",
    "fits",
    "is_video",
    "name_of",
    "notes_about",
    "notes_of",
    "one_token",
    "open_device",
    "open_image",
    "open_model",
    "open_shown",
    "prompt_inputs",
    "title_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'vlm_pruner.asking' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vlm_pruner.asking.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
