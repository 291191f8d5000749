"""What the files of golden cases share: cases by method, and checksums that tell a change of NumPy's random stream."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Case", "Cases", "check_sums"]

Array = NDArray[Any]
Case = dict[str, Any]


class Cases:
    """The cases of `tests/golden/<name>`."""

    def __init__(self, name: str) -> None:
        self._file = Path(__file__).parent.parent / "golden" / name

    @functools.cached_property
    def _all(self) -> list[Case]:
        loaded: list[Case] = json.loads(self._file.read_text())
        return loaded

    def methods(self) -> list[str]:
        """Names that have cases."""
        return sorted({c["method"] for c in self._all})

    def of(self, method: str) -> list[Case]:
        """Every case of `method`.

        Raises:
            LookupError: there is none, which means a misspelt name: the error lists those that have cases.
        """
        found = [c for c in self._all if c["method"] == method]
        if not found:
            raise LookupError(f"no case for {method!r} in {self._file.name}; there are {self.methods()}")
        return found


def check_sums(case: Case, arrays: Mapping[str, Any]) -> None:
    """Raise if a tensor is not the one that the case was made with.

    Raises:
        AssertionError: a checksum differs, i.e. NumPy's random stream has changed.
    """
    for name, expected in case["checksums"].items():
        found = round(float(np.asarray(arrays[name], np.float64).mean()), 6)
        assert found == expected, f"checksum of {name} is {found}, expected {expected}: other random stream"
