"""Answers on disk: append-only JSON lines that survive a kill at any moment.

One line holds one batch of one cell and reaches the file in a single write, so a batch is there as a whole or not at
all; a last line that a kill tore off is cut away on opening. Batches are a fixed partition of the questions, hence a
resumed run computes exactly what was missing and ends with the same file as an uninterrupted one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlm_pruner.errors import PlanError

__all__ = ["Answer", "AnswerStore"]

_HEADER = {"vlm_pruner_answers": 1}


@dataclass(frozen=True)
class Answer:
    """What one question came to in one cell. Shares and similarities are rounded, so that files compare by bytes."""

    question: str
    text: str
    correct: bool | float  # how far it is right where the matching is graded
    kept: int  # visual tokens left after the last stage
    layer_average: float  # visual tokens per decoder layer
    flops: int | None  # of the prefill; None where there is no formula
    evidence_kept: float | None = None  # share of the tokens that show what was asked about; None = no such tokens
    object_kept: float | None = None  # share of all object tokens of the picture
    redundancy: float | None = None  # mean cosine between kept tokens


class AnswerStore:
    """`store[cell]` maps question ids to answers; `append` adds a batch."""

    def __init__(self, path: str | Path) -> None:
        """Open or create.

        Raises:
            PlanError: the file is not one of ours, or a line other than the last is broken.
        """
        self.path = Path(path)
        self._cells: dict[str, dict[str, Answer]] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self.path, len(whole))
        if not whole:
            self._write(_HEADER)
        for number, line in enumerate(whole.splitlines()):
            self._read(number, line)

    def __getitem__(self, cell: str) -> Mapping[str, Answer]:
        return self._cells.get(cell, {})

    def has(self, cell: str, questions: Iterable[str]) -> bool:
        """Is every one of `questions` answered in `cell`?"""
        return self._cells.get(cell, {}).keys() >= set(questions)

    def append(self, cell: str, answers: Iterable[Answer]) -> None:
        """Add one batch; it is on the disk when this returns."""
        rows = list(answers)
        self._write({"cell": cell, "answers": [asdict(row) for row in rows]})
        self._cells.setdefault(cell, {}).update({row.question: row for row in rows})

    def compact(self, cells: Iterable[str], questions: Iterable[str]) -> None:
        """Rewrite the file, atomically, in the order given: the same bytes whatever way a run came here.

        Cells and questions that are not named stay, in sorted order behind.
        """
        rank = {question: i for i, question in enumerate(questions)}
        last = len(rank)
        order = [*dict.fromkeys(cells), *sorted(self._cells.keys() - set(cells))]
        lines = [_line(_HEADER)]
        for cell in order:
            rows = sorted(self._cells.get(cell, {}).values(), key=lambda r: (rank.get(r.question, last), r.question))
            if rows:
                lines.append(_line({"cell": cell, "answers": [asdict(row) for row in rows]}))
        part = self.path.with_name(self.path.name + ".part")
        part.write_bytes(b"".join(lines))
        os.replace(part, self.path)

    def _write(self, record: Mapping[str, Any]) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, _line(record))
            os.fsync(file)
        finally:
            os.close(file)

    def _read(self, number: int, line: bytes) -> None:
        try:
            record = json.loads(line)
            if number == 0:
                if record != _HEADER:
                    raise ValueError(f"the first line is not {_HEADER}")
                return
            rows = [Answer(**row) for row in record["answers"]]
            self._cells.setdefault(record["cell"], {}).update({row.question: row for row in rows})
        except (ValueError, TypeError, KeyError) as error:
            raise PlanError(f"{self.path}, line {number + 1} is no record of answers: {error}") from error


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
