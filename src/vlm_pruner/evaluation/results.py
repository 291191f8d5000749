"""What a benchmark run found, compact enough for a repository: one bit per answer, all else is computed from it.

Answers that are right in part, by a graded matching of your own data, are a number each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_pruner.budget import Keep
from vlm_pruner.errors import PlanError, unknown_name
from vlm_pruner.evaluation.cells import Cell
from vlm_pruner.evaluation.statistics import Bootstrap, Interval
from vlm_pruner.evaluation.store import Answer

__all__ = ["BenchResults", "CellResult", "Row", "write_json"]

VERSION = 1


@dataclass(frozen=True)
class CellResult:
    """One method at one budget with one seed. Means are over the questions."""

    label: str
    budget: Keep
    seed: int
    method: str
    params: dict[str, Any]
    stages: list[list[Any]]  # [method, keep, layer] of every stage
    correct: str | list[float]  # one bit per question, packed, hexadecimal; or how far each is right
    kept: float  # visual tokens left at the end, per picture
    layer_average: float  # visual tokens per decoder layer and picture
    flops: float | None  # prefill FLOPs per question; None where there is no formula
    evidence_kept: float | None  # share of the tokens that show what was asked about
    evidence_lost: float | None  # share of the questions with evidence of which no token is left
    object_kept: float | None  # share of all object tokens
    redundancy: float | None  # mean cosine between the kept tokens of a picture

    def bits(self, questions: int) -> NDArray[np.float64]:
        """[questions] 1 where the answer is right, between 0 and 1 where it is in part."""
        if not isinstance(self.correct, str):
            return np.asarray(self.correct, dtype=np.float64)
        packed = np.frombuffer(bytes.fromhex(self.correct), dtype=np.uint8)
        return np.unpackbits(packed, count=questions).astype(np.float64)

    @classmethod
    def of(cls, cell: Cell, answers: Sequence[Answer]) -> CellResult:
        """Bits and means of one cell."""
        method = cell.plan.stages[0].method
        evidence = [a.evidence_kept for a in answers if a.evidence_kept is not None]
        return cls(
            label=cell.label,
            budget=cell.budget,
            seed=cell.seed,
            method=method.name,
            params=method.params(),
            stages=[[s.method.name, s.keep, s.layer] for s in cell.plan.stages],
            correct=cls.pack([a.correct for a in answers]),
            kept=_mean([a.kept for a in answers]) or 0.0,
            layer_average=_mean([a.layer_average for a in answers]) or 0.0,
            flops=_mean([a.flops for a in answers if a.flops is not None]),
            evidence_kept=_mean(evidence),
            evidence_lost=_mean([float(e == 0) for e in evidence]),
            object_kept=_mean([a.object_kept for a in answers if a.object_kept is not None]),
            redundancy=_mean([a.redundancy for a in answers if a.redundancy is not None]),
        )

    @staticmethod
    def pack(correct: Sequence[bool | float]) -> str | list[float]:
        """The JSON form of `correct`."""
        if any(value not in (0, 1) for value in correct):
            return [float(value) for value in correct]
        return np.packbits(np.asarray(correct, dtype=np.uint8)).tobytes().hex()


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


@dataclass(frozen=True)
class Row:
    """All seeds of one method at one budget."""

    label: str
    budget: Keep
    cells: tuple[CellResult, ...]
    correct: NDArray[np.float64]  # [seeds, questions]

    def mean(self, name: str) -> float | None:
        """Mean over the seeds of a number of `CellResult`; None if no seed has it."""
        values = [value for value in (getattr(cell, name) for cell in self.cells) if value is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class BenchResults:
    """One run: what was asked, what came out, and what could not be run."""

    model: dict[str, Any]  # name, weights (hash), layers, tokens (None: budgets are shares)
    split: dict[str, Any]  # name, version
    types: list[str]  # of every question
    scenes: list[int]  # of every question: those with equal numbers share their picture
    chance: dict[str, float]  # per type, where it is known
    cells: list[CellResult]
    left_out: list[dict[str, Any]] = field(default_factory=list)  # label, budget, reason
    equal: str | None = None  # "layer-average": every budget means the cost that `vlm-pruner` has at it
    about: dict[str, Any] | None = None  # when and with what it was made, where that was to be noted
    unasked: list[dict[str, Any]] | None = None  # type, questions, reason of those that the model cannot be asked

    def bootstrap(self, draws: int = 2000, seed: int = 0) -> Bootstrap:
        """Resamples shared by every comparison of this run."""
        return Bootstrap(self.types, self.scenes, draws=draws, seed=seed)

    def rows(self) -> list[Row]:
        """Seeds put together, in the order of the run."""
        return list(self._rows)

    @cached_property
    def _rows(self) -> list[Row]:
        groups: dict[tuple[str, Keep], list[CellResult]] = {}
        for cell in self.cells:
            groups.setdefault((cell.label, cell.budget), []).append(cell)
        n = len(self.types)
        return [Row(*key, tuple(cells), np.stack([c.bits(n) for c in cells])) for key, cells in groups.items()]

    def row(self, label: str, budget: Keep | None = None) -> Row:
        """The row of a method, at the budget if it has several.

        Raises:
            PlanError: there is none.
        """
        rows = [r for r in self.rows() if r.label == label and (budget is None or r.budget == budget)]
        if not rows:
            raise PlanError(unknown_name("row", f"{label}@{budget}", [f"{r.label}@{r.budget}" for r in self.rows()]))
        return rows[0]

    def difference(self, a: Row, b: Row, bootstrap: Bootstrap) -> Interval:
        """Retention of `a` less that of `b`, paired over the questions."""
        return bootstrap.retention_difference(a.correct, b.correct, self.row("none").correct)

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        names = sorted(set(self.types))
        record = asdict(self) | {"version": VERSION, "types": [names, [names.index(t) for t in self.types]]}
        for name in ("about", "unasked"):
            if record[name] is None:
                del record[name]
        return dict(sorted(record.items(), key=lambda item: item[0] == "cells"))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> BenchResults:
        """Inverse of `to_json`.

        Raises:
            PlanError: another version, or fields that do not fit.
        """
        fields = dict(record)
        if fields.pop("version", None) != VERSION:
            raise PlanError(f"results of version {record.get('version')!r}; this library reads version {VERSION}")
        try:
            names, index = fields.pop("types")
            cells = [CellResult(**cell) for cell in fields.pop("cells")]
            return cls(types=[names[i] for i in index], cells=cells, **fields)
        except (TypeError, KeyError, IndexError) as error:
            raise PlanError(f"not a results file: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the JSON file, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> BenchResults:
        """Read a file written by `save`."""
        return cls.from_json(json.loads(Path(path).read_text()))


def write_json(path: str | Path, record: Mapping[str, Any]) -> None:
    """Write atomically: one line per entry of a top-level list of objects, the rest on one line each."""
    lines = []
    for key, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inner = ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value)
            lines.append(f" {json.dumps(key)}: [\n{inner}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    os.replace(part, path)
