"""What every benchmark shares: arguments, the machine, checks that must hold before a figure is printed, the JSON.

A result file is one object: `name`, `command`, `machine` (device, processor, gpu, threads), `load`, `torch`, `quick`,
`rows` (flat objects; a median carries its samples beside it), `aims` (what the project promises, and whether it is so).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vlm_pruner.profiling.timing import describe_machine, median

RESULTS = Path(__file__).parent / "results"


def arguments(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """Parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default=defaults.get("device", "cpu"), help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, fewest repeats: a smoke test, no figures")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--repeats", type=int, default=defaults.get("repeats", 7))
    parser.add_argument(
        "--out", type=Path, default=None, help="result file; by default results/<name>.json, none if quick"
    )
    return parser


def prepare(options: argparse.Namespace) -> torch.device:
    """The device to measure on, threads and gradients set.

    Raises:
        SystemExit: the device is not there.
    """
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; run with --device cpu")
    return device


def _anywhere(word: str) -> str:
    """An argument as it may be published: of a path on this machine only its last name."""
    return re.sub(r"(^|=)/.*/", r"\1", word)


@dataclass
class Report:
    """Collects rows, checks and aims of one benchmark; prints and writes them only if every check held."""

    name: str
    options: argparse.Namespace
    device: torch.device
    rows: list[dict[str, Any]] = field(default_factory=list)
    aims: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def check(self, holds: bool, message: str) -> None:
        """A condition without which the figures mean nothing."""
        if not holds:
            self.broken.append(message)

    def row(self, name: str, samples: Sequence[float] | None = None, unit: str = "ms", **fields: Any) -> dict[str, Any]:
        """A line of the result: a median with its samples, or plain fields."""
        entry: dict[str, Any] = {"name": name, **fields}
        if samples is not None:
            entry |= {f"median_{unit}": median(samples), f"samples_{unit}": [round(s, 6) for s in samples]}
        self.rows.append(entry)
        return entry

    def aim(self, text: str, value: float, most: float) -> None:
        """A promise of the project: `value` should be at most `most`."""
        self.aims.append({"aim": text, "value": value, "most": most, "met": value <= most})

    def finish(self) -> None:
        """Print the table and write the JSON.

        Raises:
            SystemExit: a check failed; nothing is printed but the checks.
        """
        if self.broken:
            raise SystemExit("no figures, these checks failed:\n" + "\n".join(f"  {line}" for line in self.broken))
        machine = describe_machine(self.device)
        result = {
            "name": self.name,
            "command": " ".join(["python -m benchmarks." + self.name.replace("/", "."), *map(_anywhere, sys.argv[1:])]),
            "machine": machine,
            "load": [round(x, 2) for x in os.getloadavg()],
            "torch": machine["torch"],
            "quick": self.options.quick,
            "rows": self.rows,
            "aims": self.aims,
        }
        print(table(self.rows))
        for aim in self.aims:
            print(
                f"{'met    ' if aim['met'] else 'NOT MET'} {aim['aim']}: {aim['value']:.4g} (at most {aim['most']:.4g})"
            )
        path = self.options.out or (None if self.options.quick else RESULTS / f"{self.name}.json")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned text, samples left out."""
    columns = list(dict.fromkeys(key for row in rows for key in row if not key.startswith("samples_")))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
