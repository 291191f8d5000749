"""A torchvision that was built for another torch: without this, nothing of transformers that sees can be imported.

At its import it describes two operators that its compiled part brings, and fails where that part cannot be loaded. No
processor calls them, so that their names are enough.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["declare_operators"]

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_operators() -> None:
    """Make `import torchvision` work if it is installed at all; to be called before anything imports transformers.

    Where its compiled part loads, nothing is declared. What needs the operators themselves says that they are missing.
    """
    if "torchvision" in sys.modules:
        return
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    import torch

    if hasattr(torch.ops.torchvision, OPERATORS[0]):
        return
    try:
        (library,) = Path(found.origin).parent.glob("_C.*")
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except (ValueError, OSError):
        for name in OPERATORS:
            torch.library.define(f"torchvision::{name}", SCHEMA)
