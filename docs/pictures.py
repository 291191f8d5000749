"""Makes the pictures of the README and the docs, from the shipped model and image: `make pictures`."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from vlm_pruner import asking
from vlm_pruner.asking import Answer, Loaded
from vlm_pruner.asking.pictures import answer_layout, answer_overlay, answer_selection
from vlm_pruner.plan import PrunePlan
from vlm_pruner.viz import growth_frames, merge_map, merge_panels, overlay_panels, save_growth
from vlm_pruner.viz.canvas import sheet, slot_width
from vlm_pruner.viz.overlay import selection_legend

__all__ = ["draw"]

FOLDER = Path(__file__).parent / "pictures"
QUESTION = "What is the word?"
METHODS = ("vlm-pruner", "divprune", "grid", "random")
KEEP = 64
LIMIT = 200_000  # bytes of one picture


def draw(folder: Path = FOLDER) -> list[Path]:
    """Write all pictures to `folder`.

    Raises:
        ValueError: a picture is larger than a repository should carry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loaded, image = asking.open_model(), asking.open_image(asking.DEMO_IMAGE)
    plans = [PrunePlan.of(method, KEEP, num_layers=loaded.layers) for method in METHODS]
    full, *pruned = asking.ask(loaded, image, QUESTION, plans, runs=1)
    layout, selection = answer_layout(loaded, image, pruned[0]), answer_selection(pruned[0])
    made = {
        "poster.jpg": poster(loaded, image, full, pruned),
        "overlay.jpg": answer_overlay(loaded, image, QUESTION, pruned[0], width=900),
        "merges.jpg": merge_map(image, layout, selection, width=900),
    }
    for name, picture in made.items():
        picture.save(folder / name, quality=80, optimize=True, progressive=True)
    frames = growth_frames(image, layout, selection, title="VLM-Pruner chooses 64 of 576", steps=22, width=420)
    save_growth(folder / "growth.gif", frames, colours=160)
    paths = [folder / name for name in (*made, "growth.gif")]
    large = [f"{path.name}: {path.stat().st_size:,} bytes" for path in paths if path.stat().st_size > LIMIT]
    if large:
        raise ValueError(f"over {LIMIT:,} bytes: {', '.join(large)}")
    return paths


def poster(loaded: Loaded, image: Image.Image, full: Answer, pruned: list[Answer]) -> Image.Image:
    """What the model is shown, what each method leaves of it, and what the model then answers."""
    width, columns = 1080, 3
    slot = slot_width(width, columns)
    panels, captions = [image.resize((slot, slot), Image.Resampling.LANCZOS)], [f"With all tokens: {full.text}"]
    layout = answer_layout(loaded, image, pruned[0])
    for answer in pruned:
        (panel,) = overlay_panels(image, layout, answer_selection(answer), width=slot, numbers=False)
        panels.append(panel)
        captions.append(f"{answer.plan.stages[0].method.title} reads {answer.text}")
    panels[2:2] = merge_panels(image, layout, answer_selection(pruned[0]), width=slot)
    captions.insert(2, "Where the rest merges")
    return sheet(
        panels,
        title=f"“{QUESTION}” {KEEP} of 576 visual tokens are left",
        captions=captions,
        legend=selection_legend(image, layout, answer_selection(pruned[0])),
        columns=columns,
        width=width,
    )


def main() -> None:
    """Draw, and say what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    for path in draw(parser.parse_args().out):
        print(f"{path} {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
