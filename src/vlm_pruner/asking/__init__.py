"""One question about one image, with and without pruning: what the command line, the report and the page share."""

from vlm_pruner.asking.answers import Answer, Run, Times, ask
from vlm_pruner.asking.facts import describe, facts
from vlm_pruner.asking.inputs import DEMO_IMAGE, check_size, open_image
from vlm_pruner.asking.models import EMBEDDED, Loaded, open_device, open_model
from vlm_pruner.asking.prompts import prompt_inputs

__all__ = [
    "DEMO_IMAGE",
    "EMBEDDED",
    "Answer",
    "Loaded",
    "Run",
    "Times",
    "ask",
    "check_size",
    "describe",
    "facts",
    "open_device",
    "open_image",
    "open_model",
    "prompt_inputs",
]
