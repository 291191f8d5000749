"""torchvision, where it is installed: the processors of most families need it.

It is no dependency of the package, and where it does not fit the build of torch it breaks transformers as a whole (a
CUDA build beside a CPU build of torch). So `make test` puts it into a folder of its own, which a run of its own sees:

    from tests.support.vision import needs_torchvision

    pytestmark = needs_torchvision
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from vlm_pruner.torchvision_fit import declare_operators

__all__ = ["needs_torchvision", "prepare"]


def prepare() -> None:
    """Make `import torchvision` work, if it is installed at all; to be called before anything imports transformers."""
    declare_operators()


needs_torchvision = [
    pytest.mark.torchvision,
    pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: `make test` runs it by itself"),
]
"""What `pytestmark` of a module, or `marks` of a parameter, is set to."""
