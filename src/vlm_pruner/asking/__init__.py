"""One question about an image or a video, with and without pruning: what commands, reports and the page share."""

from vlm_pruner.asking.answers import Answer, Refused, Run, Times, ask, compare, name_of
from vlm_pruner.asking.colours import as_shown, notes_of
from vlm_pruner.asking.facts import describe, facts, one_token, title_of
from vlm_pruner.asking.fits import fits
from vlm_pruner.asking.loading import Loading, open_device
from vlm_pruner.asking.models import EMBEDDED, EMBEDDED_VIDEO, Loaded, open_model
from vlm_pruner.asking.opening import DEMO_IMAGE, check_size, open_image
from vlm_pruner.asking.prompts import prompt_inputs
from vlm_pruner.asking.videos import Shown, is_video, notes_about, open_shown

__all__ = [
    "DEMO_IMAGE",
    "EMBEDDED",
    "EMBEDDED_VIDEO",
    "Answer",
    "Loaded",
    "Loading",
    "Refused",
    "Run",
    "Shown",
    "Times",
    "as_shown",
    "ask",
    "check_size",
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
