"""Answers of an evaluation on the disk, one line each, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlm_pruner.json_text import read_json

__all__ = ["Answers", "Reply", "key_of"]


@dataclass(frozen=True)
class Reply:
    """What one request came to."""

    text: str
    input_tokens: int
    output_tokens: int
    visual_tokens_before: float
    visual_tokens_after: float
    visual_tokens_per_layer: float
    kv_mib_before: float
    kv_mib_after: float
    prefill_ms: float
    select_ms: float
    seconds: float  # of the whole request; a batch is shared out


class Answers:
    """`answers[key]` is a reply or None. Several processes may append to one file: a line is one write."""

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._known: dict[str, Reply] = {}
        if self._path is not None and self._path.exists():
            for line in self._path.read_bytes().splitlines():
                try:
                    key, reply = read_json(line)
                    self._known[key] = Reply(**reply)
                except (ValueError, TypeError):  # the line that a kill cut off
                    continue

    def get(self, key: str) -> Reply | None:
        """The reply of an earlier run."""
        return self._known.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; it is on the disk when this returns."""
        self._known[key] = reply
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, b"\n" + json.dumps([key, asdict(reply)], ensure_ascii=False).encode())
            os.fsync(file)
        finally:
            os.close(file)


def key_of(*parts: Any) -> str:
    """A name for a request: all that its answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
