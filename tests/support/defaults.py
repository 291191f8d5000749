"""Settings of torch that hold for everybody in the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def default(setting: torch.dtype | str) -> Iterator[None]:
    """A default dtype, or the name of a default device."""
    try:
        if isinstance(setting, str):
            torch.set_default_device(setting)
        else:
            torch.set_default_dtype(setting)
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
