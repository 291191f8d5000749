"""The files that a finished job leaves: the rows, their times, and what pruning saved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vlm_pruner.report import provenance
from vlm_pruner.serving.batch.rows import Source, arrow
from vlm_pruner.serving.batch.store import Found

__all__ = ["Summary", "beside", "finished", "write_results"]


@dataclass(frozen=True)
class Summary:
    """A job in numbers."""

    rows: int
    errors: int
    tokens: int  # visual ones of all rows, before pruning
    kept: int
    flops_full: int  # of the prefills; 0 where there is no formula
    flops_pruned: int
    kv_bytes_full: int  # after them
    kv_bytes_pruned: int
    seconds: float  # of the model, all processes together, interrupted runs included

    def __str__(self) -> str:
        parts = [f"{self.rows} rows, {self.errors} with an error"]
        if self.tokens:
            parts.append(f"{self.kept} of {self.tokens} visual tokens kept ({self.kept / self.tokens:.1%})")
        if self.flops_full:
            parts.append(f"prefill FLOPs {self.flops_pruned / self.flops_full:.0%} of unpruned")
        if self.kv_bytes_full:
            parts.append(f"KV cache {self.kv_bytes_pruned / self.kv_bytes_full:.0%}")
        return "; ".join(parts)


def beside(output: Path) -> dict[str, Path]:
    """What is written beside the output: times, which no two runs share, and the summary."""
    return {"times": output.with_suffix(".times.jsonl"), "summary": output.with_suffix(".summary.json")}


def write_results(output: Path, job: Mapping[str, Any], source: Source, found: Found, step: int) -> Summary:
    """Write all rows in their order: `id`, `answer`, `kept`, `total`, `error`. A file is there whole or not at all.

    The summary, which holds `job`, comes last: where it is, the job is done.
    """
    ids: list[str] = []
    for start in range(0, len(source), step):
        ids += [row.id for row in source.rows(start, min(start + step, len(source)))]
    rows = [{"id": name, **asdict(found.results[number])} for number, name in enumerate(ids)]
    _replace(output, lambda part: (_parquet if output.suffix.lower() == ".parquet" else _lines)(part, rows))
    times = [{"id": name, "ms": round(found.milliseconds[number], 3)} for number, name in enumerate(ids)]
    _replace(beside(output)["times"], lambda part: _lines(part, times))
    summary = Summary(
        rows=len(rows),
        errors=sum(row["error"] is not None for row in rows),
        tokens=sum(row["total"] or 0 for row in rows),
        kept=sum(row["kept"] or 0 for row in rows),
        **found.costs,
        seconds=round(sum(found.milliseconds.values()) / 1e3, 3),
    )
    record = {"job": dict(job), **asdict(summary), "about": provenance()}
    _replace(beside(output)["summary"], lambda part: _text(part, json.dumps(record, indent=2, ensure_ascii=False)))
    return summary


def finished(output: Path, job: Mapping[str, Any]) -> Summary | None:
    """The summary of this very job, where it has been done before."""
    try:
        record = json.loads(beside(output)["summary"].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not output.exists() or not isinstance(record, dict) or record.get("job") != json.loads(json.dumps(dict(job))):
        return None
    return Summary(**{one.name: record[one.name] for one in fields(Summary)})


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa

    kinds = {"id": pa.string(), "answer": pa.string(), "kept": pa.int64(), "total": pa.int64(), "error": pa.string()}
    columns = {name: [row[name] for row in rows] for name in kinds}
    arrow().write_table(pa.table(columns, schema=pa.schema(list(kinds.items()))), path)
