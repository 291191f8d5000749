"""What scenes show and ask for, word by word and colour by colour."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from vlm_pruner.scenes import vocabulary


def test_words_and_colours_are_those_of_the_published_figures() -> None:
    known = {name: value for name, value in vars(vocabulary).items() if name.isupper()}
    tables = {name: dict(value) if isinstance(value, Mapping) else value for name, value in known.items()}
    assert hashlib.sha256(json.dumps(tables).encode()).hexdigest()[:16] == "59a46ecbc5cdff55"
