"""The scenes as a task of lmms-eval, written to a folder: `--include_path FOLDER --tasks vlm_pruner_scenes`."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_pruner import scenes

__all__ = ["TASK", "as_scored", "as_seen", "write_scenes"]

TASK = "vlm_pruner_scenes"

_YAML = """task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.as_seen
doc_to_text: "question"
doc_to_target: "answer"
process_results: !function utils.as_scored
generation_kwargs:
  max_new_tokens: 12
  temperature: 0
  do_sample: false
metric_list:
{metrics}
metadata:
  version: "{version}"
"""
_METRIC = "  - metric: {name}\n    aggregation: mean\n    higher_is_better: true"
_UTILS = """from vlm_pruner.evaluation.lmms.scenes_task import as_scored, as_seen  # what lmms-eval calls
"""


def write_scenes(folder: str | Path, split: str = "test", limit: int | None = None) -> Path:
    """Questions, pictures and the task of a split, in a folder that may be there already.

    Args:
        limit: the first so many of every type.

    Raises:
        InputError: no such split, or not as many questions.
    """
    out = Path(folder).resolve()
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for question in scenes.load_split(split, limit):
        names = []
        for number, image in enumerate(question.images):
            path = out / "images" / f"{question.id}-{number}.png"
            if not path.exists():
                made = io.BytesIO()
                image.save(made, format="PNG")
                _write(path, made.getvalue())
            names.append(str(path))
        rows.append({
            "id": question.id, "images": names, "question": question.text, "answer": question.answer,
            "type": question.type,
        })  # fmt: skip
    data = out / f"{split}-{limit or scenes.PER_TYPE}.jsonl"
    _write(data, "".join(json.dumps(row) + "\n" for row in rows).encode())
    metrics = ["accuracy", *(f"accuracy_{name}" for name in sorted({row["type"] for row in rows}))]
    lines = "\n".join(_METRIC.format(name=name) for name in metrics)
    yaml = _YAML.format(task=TASK, data=data, metrics=lines, version=scenes.VERSION)
    _write(out / f"{TASK}.yaml", yaml.encode())
    _write(out / "utils.py", _UTILS.encode())
    return out


def _write(path: Path, content: bytes) -> None:
    """In one step: several processes write the same file with the same content."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def as_seen(doc: Mapping[str, Any]) -> list[Image.Image]:
    """The pictures of a question."""
    opened = []
    for path in doc["images"]:
        with Image.open(path) as image:
            opened.append(image.convert("RGB"))
    return opened


def as_scored(doc: Mapping[str, Any], results: list[str]) -> dict[str, float]:
    """1 for a right answer, counted for all questions and for those of its type."""
    right = float(scenes.right(doc["type"], doc["answer"], results[0]))
    return {"accuracy": right, f"accuracy_{doc['type']}": right}
