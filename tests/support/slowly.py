"""Parameters of tests of which some run always and the rest with the slow tests, because it is more of the same."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest

__all__ = ["the_rest_slowly"]


def the_rest_slowly(values: Iterable[Any], always: Container[Any]) -> list[Any]:
    """`values` for `pytest.mark.parametrize`, those marked slow that are not among `always`."""
    return [value if value in always else pytest.param(value, marks=pytest.mark.slow) for value in values]
