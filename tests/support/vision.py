"""torchvision, where it is installed: the processors of most families need it.

It is no dependency of the package, and where it does not fit the build of torch it breaks transformers as a whole (a
CUDA build beside a CPU build of torch). So `make test` puts it into a folder of its own, which a run of its own sees:

    from tests.support.vision import needs_torchvision

    pytestmark = needs_torchvision
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

__all__ = ["needs_torchvision", "prepare"]


def prepare() -> bool:
    """Make `import torchvision` work, if it is installed at all; to be called before anything imports transformers.

    Without its compiled operators the import fails at the first one that it describes. No processor calls these, so
    that their names are enough.
    """
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return False
    if not hasattr(torch.ops.torchvision, "nms"):
        try:
            (library,) = Path(found.origin).parent.glob("_C.*")
            torch.ops.load_library(str(library))
        except (ValueError, OSError):
            for name in ("nms", "qnms"):
                torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    return True


needs_torchvision = [
    pytest.mark.torchvision,
    pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: `make test` runs it by itself"),
]
"""What `pytestmark` of a module, or `marks` of a parameter, is set to."""
