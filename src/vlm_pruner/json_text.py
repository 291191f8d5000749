"""JSON that somebody else wrote: whatever is wrong with it is one error, whose message fits on a line."""

from __future__ import annotations

import json
from typing import Any

from vlm_pruner.errors import InputError

__all__ = ["read_json"]


def read_json(text: str | bytes) -> Any:
    """The value that `text` holds.

    Raises:
        InputError: it is no JSON, is nested too deeply to be read, or holds a whole number of thousands of digits.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not JSON: {error}") from None
    except RecursionError:
        raise InputError("not JSON that can be read: it is nested too deeply") from None
    except ValueError:
        raise InputError("not JSON that can be read: a whole number in it has too many digits") from None
