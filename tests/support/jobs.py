"""Rows for batch jobs: good ones, and every kind of broken one."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from tests.support.own import own_data

__all__ = ["POISON", "mixed_rows", "poisoned"]

POISON = {
    "broken": "is not a readable image",
    "missing": "no image at",
    "large": "megapixels",
    "empty": "the question is empty",
    "placeholder": "placeholder",
    "silent": "no 'question'",
    "blind": "one of 'image', 'images', 'folder' and 'video'",
    "number": "'question' is a text, not 7",
}
"""Kinds of broken rows, and what their error says."""


def mixed_rows(folder: Path, questions: int = 10) -> Path:
    """A .jsonl of good rows: photographs and pages, a long question, two pictures in one row."""
    path = own_data(folder, questions)
    rows = [{key: row[key] for key in ("image", "question")} for row in map(json.loads, path.read_text().splitlines())]
    rows[1]["question"] = "There are many things in this picture, and I ask about one of them. " * 3 + "Is there a cat?"
    rows[2] = {"images": [rows[2]["image"], rows[0]["image"]], "question": "Is there a cat?"}
    return _write(folder / "mixed.jsonl", rows)


def poisoned(path: Path) -> Path:
    """The same rows with broken ones between them, which have their kind as id; the last line is no JSON."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    folder, good = path.parent, rows[0]["image"]
    (folder / "broken.png").write_bytes((folder / good).read_bytes()[:500])
    Image.new("1", (12000, 10000)).save(folder / "large.png")
    bad = {
        "broken": {"image": "broken.png", "question": "Is there a cat?"},
        "missing": {"image": "nothing-like-it.webp", "question": "Is there a cat?"},
        "large": {"image": "large.png", "question": "Is there a cat?"},
        "empty": {"image": good, "question": "  "},
        "placeholder": {"image": good, "question": "Is there a <image>?"},
        "silent": {"image": good},
        "blind": {"question": "Is there a cat?"},
        "number": {"image": good, "question": 7},
    }
    assert bad.keys() == POISON.keys()
    for number, (kind, row) in enumerate(bad.items()):
        rows.insert(2 * number, {"id": kind, **row})
    made = _write(folder / "poisoned.jsonl", rows)
    with made.open("a") as file:
        file.write("{no json\n")
    return made


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
