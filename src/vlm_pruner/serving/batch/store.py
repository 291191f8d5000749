"""What a job has found so far: logs beside the output that survive a kill at any moment.

Every process that works on a job writes a log of its own, a line for each batch in one write, and reads those of all
others. A line that a kill tore off is the last of its log and is not read; nobody writes behind it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlm_pruner.errors import InputError
from vlm_pruner.serving.batch.answer import COSTS, Result

__all__ = ["Found", "Record", "Store"]


@dataclass(frozen=True)
class Record:
    """One batch, or the rows of a window that could not be read."""

    results: Mapping[int, Result]  # by number of the row
    milliseconds: float = 0.0
    costs: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(COSTS, 0))

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        data = json.loads(text)
        results = {int(number): Result(**result) for number, result in data.pop("results").items()}
        return cls(results, **data)


@dataclass
class Found:
    """All that was found, each row once."""

    results: dict[int, Result] = field(default_factory=dict)
    milliseconds: dict[int, float] = field(default_factory=dict)  # of each row: an equal share of its batch's
    costs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COSTS, 0))

    def add(self, record: Record) -> None:
        """One more batch, unless its rows are known already."""
        if not record.results.keys() <= self.results.keys():
            self.results |= record.results
            self.milliseconds |= dict.fromkeys(record.results, record.milliseconds / max(1, len(record.results)))
            self.costs = {name: value + record.costs[name] for name, value in self.costs.items()}


class Store:
    """The logs of one job, in a folder beside its output."""

    def __init__(self, output: Path, job: Mapping[str, Any]) -> None:
        """Open or create.

        Args:
            job: what the results depend on.

        Raises:
            InputError: the folder belongs to another job.
        """
        self.folder = output.with_name(output.name + ".parts")
        self._job = dict(job)
        self._log: int | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim()

    def read(self) -> Found:
        """What all processes have found until now."""
        found = Found()
        for log in sorted(self.folder.glob("*.log")):
            whole = log.read_bytes()
            for line in whole[: whole.rfind(b"\n") + 1].splitlines():
                found.add(Record.from_json(line))
        return found

    def append(self, record: Record) -> None:
        """One batch; it is on the disk when this returns."""
        if self._log is None:
            self._log = os.open(self.folder / f"{uuid.uuid4().hex}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._log, record.to_json().encode(errors="surrogatepass") + b"\n")
        os.fsync(self._log)

    def remove(self) -> None:
        """Everything, once the output is written."""
        if self._log is not None:
            os.close(self._log)
            self._log = None
        shutil.rmtree(self.folder)

    def _claim(self) -> None:
        """Write down whose the folder is, or find it written."""
        note = self.folder / "job.json"
        part = self.folder / f"{uuid.uuid4().hex}.part"
        part.write_text(json.dumps(self._job, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
        try:
            os.link(part, note)  # one process of many wins, and the file is whole
        except FileExistsError:
            there = json.loads(note.read_text(encoding="utf-8"))
            other = [name for name in {**self._job, **there} if there.get(name) != self._job.get(name)]
            if other:
                raise InputError(
                    f"{str(self.folder)!r} holds an unfinished job with another {' and '.join(other)}: finish that one "
                    "with its own command, remove the folder, or write to another file"
                ) from None
        finally:
            part.unlink()
