"""How the embedded model learned: its training logs as one result file, and the learning curve.

python -m benchmarks.training LOG...     gathers log.jsonl files, in order, to results/training.json, and draws
python -m benchmarks.training            draws docs/images/embedded_training.svg from the result file
python -m benchmarks.training --video    the same of the form for videos
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

from vlm_pruner.evaluation.table import table
from vlm_pruner.scenes import TYPES
from vlm_pruner.scenes.motion_questions import MOTION_TYPES

__all__ = ["draw", "gather", "stages_table"]

RESULT = RESULTS / "training.json"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "embedded_training.svg"
VIDEO, VIDEO_PICTURE = RESULTS / "training_video.json", PICTURE.with_name("embedded_video_training.svg")
INK, BAND = "#1f4e79", "#9dc3e6"


def gather(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log lines by stage: its runs with their numbers and seeds, and a table of figures.

    Lines with "run" start a run; a stage that was interrupted has several.
    """
    stages: dict[str, dict[str, Any]] = {}
    for line in lines:
        stage = stages.setdefault(line["stage"], {"stage": line["stage"], "runs": [], "lines": []})
        if "run" in line:
            stage["runs"].append({"from_step": line["from_step"], **line["run"]})
        else:
            stage["lines"].append({key: value for key, value in line.items() if key != "stage"})
    out = []
    for stage in stages.values():
        columns = list(dict.fromkeys(key for line in stage["lines"] for key in line))
        rows = [[line.get(key) for key in columns] for line in stage["lines"]]
        out.append({"stage": stage["stage"], "runs": stage["runs"], "columns": columns, "rows": rows})
    return out


def write(logs: Sequence[Path], path: Path) -> None:
    """Gather log files to one result file, a row of figures a line."""
    stages = gather(json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines())
    parts = []
    for stage in stages:
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in stage.pop("rows"))
        parts.append(f'{json.dumps(stage)[:-1]}, "rows": [\n{rows}\n]}}')
    path.write_text('{"name": "training", "stages": [\n' + ",\n".join(parts) + "\n]}\n", encoding="utf-8")


def lines_of(stage: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of a stage as one object a line."""
    return [dict(zip(stage["columns"], row, strict=True)) for row in stage["rows"]]


def new_images(lines: list[dict[str, Any]]) -> int:
    """Images drawn in all runs of a stage; each run counts its own from nothing."""
    counts = [line["distinct"] for line in lines]
    ends = [before for before, after in pairwise(counts) if after < before]
    return sum(ends) + counts[-1]


def checked(line: dict[str, Any]) -> list[float]:
    """Per cent of right answers on held-out images or videos, per question type."""
    names = dict.fromkeys((*TYPES, *MOTION_TYPES))
    return [100 * line[f"val_{name}"] for name in names if line.get(f"val_{name}") is not None]


def stages_table(path: Path = RESULT) -> str:
    """What each stage cost and where it ended, as Markdown."""
    rows, spent = [], 0.0
    for stage in json.loads(path.read_text(encoding="utf-8"))["stages"]:
        lines = lines_of(stage)
        last = lines[-1]
        spent += last["seconds"] / 60
        types = checked(last) if "val_presence" in last else []
        figures = [f"{sum(types) / len(types):.1f}", f"{min(types):.1f}"] if types else ["", ""]
        counts = [f"{count:,d}" for count in (last["step"], last["visits"], new_images(lines))]
        rows.append([stage["stage"], f"{last['seconds'] / 60:.0f}", *counts, *figures])
    rows.append(["together", f"{spent:.0f}", "", "", "", "", ""])
    head = ["stage", "minutes", "steps", "image visits", "new images", "right, mean, %", "right, lowest type, %"]
    return table(head, rows)


def draw(path: Path = RESULT, picture: Path = PICTURE) -> None:
    """Accuracy on held-out images against minutes: the mean over the types, and from the lowest type to the highest."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    start = 0.0
    for stage in stages:
        lines = lines_of(stage)
        rows = [(start + line["seconds"] / 60, checked(line)) for line in lines if "val_presence" in line]
        if stage["stage"] != "vision":
            minutes = [at for at, _ in rows]
            axes.fill_between(
                minutes, [min(t) for _, t in rows], [max(t) for _, t in rows], color=BAND, alpha=0.5, lw=0
            )
            axes.plot(minutes, [sum(t) / len(t) for _, t in rows], color=INK)
        end = start + lines[-1]["seconds"] / 60
        axes.axvline(end, color="#b0b7bf", lw=0.8)
        axes.annotate(stage["stage"], ((start + end) / 2, 1.01), xycoords=("data", "axes fraction"), ha="center")
        start = end
    axes.set(
        xlim=(0, start), ylim=(0, 101), xlabel="minutes on one CPU core", ylabel="answers right, held-out images, %"
    )
    axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "training"}):
        figure.savefig(picture, metadata={"Date": None})


def main(options: argparse.Namespace) -> None:
    """Gather if there are logs, then draw."""
    path, picture = (VIDEO, VIDEO_PICTURE) if options.video else (RESULT, PICTURE)
    if options.logs:
        write(options.logs, path)
    draw(path, picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--video", action="store_true", help="of the form for videos: training_video.json")
    parser.add_argument("logs", type=Path, nargs="*", help="log.jsonl of the stages, in order")
    main(parser.parse_args())
