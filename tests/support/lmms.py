"""lmms-eval, which `make test-eval` installs into an environment of its own: it brings too much for the main one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

__all__ = ["needs_lmms_eval", "needs_no_lmms_eval"]

_HERE = find_spec("lmms_eval") is not None

needs_lmms_eval = pytest.mark.skipif(not _HERE, reason="needs lmms-eval: `make test-eval` runs it")
needs_no_lmms_eval = pytest.mark.skipif(_HERE, reason="says what is missing where lmms-eval is not installed")
