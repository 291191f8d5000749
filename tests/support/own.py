"""Own questions for tests: photographs of the scenes, and pages of text that are written here."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

from vlm_pruner.scenes.render import backgrounds

__all__ = ["own_data"]


def own_data(folder: Path, questions: int = 60) -> Path:
    """A .jsonl of so many questions about photographs and pages, in turn, two about each picture."""
    rows = []
    photos = backgrounds("test")
    for number in range(questions // 2):
        page = number % 2 == 1
        name = f"{'page' if page else 'photo'}-{number}.png"
        if page:
            picture = Image.new("RGB", (280 + 8 * number, 200), "white")
            ImageDraw.Draw(picture).text((20, 20), f"Invoice {number:04d}\nTotal: {7 * number} EUR", fill="black")
            asked = [("Which invoice is it?", [f"{number:04d}"]), ("What is the total?", [f"{7 * number} EUR"])]
        else:
            photo = photos[number // 2 % len(photos)]
            picture = (photo if isinstance(photo, Image.Image) else Image.fromarray(photo)).convert("RGB")
            picture = picture.rotate(90 * (number // 2 // len(photos)), expand=True)
            asked = [("Is there a cat?", ["yes", "no"]), ("What color is the background?", ["gray", "grey"])]
        picture.save(folder / name)
        group = "page" if page else "photo"
        rows += [{"image": name, "question": text, "answer": right, "group": group} for text, right in asked]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
