"""Run as a program: the peak memory of a command, or of one comparison on the page, in a process of its own.

    python -m tests.support.peak (ask | report | profile | page) MODEL IMAGE

`VmHWM` is asked, not `ru_maxrss`: a new process inherits the latter from its parent.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.vision import prepare

QUESTION = "What is this?"


def main(door: str, model: str, image: str) -> None:
    """Do it once, and print megabytes, exit code and the last line of what was said."""
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        code, said = (_page if door == "page" else _command)(door, model, image, Path(folder))
    print(_peak(), code, said)


def _command(door: str, model: str, image: str, folder: Path) -> tuple[int, str]:
    from tests.support.commands import run

    few = ("--keep", 0.5, "--max-new-tokens", 2)
    words = {
        "ask": (image, QUESTION, "--model", model, *few, "--overlay", folder / "kept.png"),
        "report": (image, QUESTION, "--model", model, *few, "--methods", "grid,tome", "-o", folder / "r.html"),
        "profile": (model, "--image", image, "--keep", 0.5, "--repeats", 1, "--new-tokens", 2),
    }[door]
    result = run(door, *words)
    return result.exit_code, (result.stderr.splitlines() or [""])[-1]


def _page(door: str, model: str, image: str, folder: Path) -> tuple[int, str]:
    from vlm_pruner.asking import DEMO_IMAGE, open_model
    from vlm_pruner.web.controls import row_of
    from vlm_pruner.web.desk import Desk
    from vlm_pruner.web.service import Service
    from vlm_pruner.web.settings import UPLOADED, Choice

    desk = Desk(Service(open_model(model)))
    uploaded, problem = (None, "") if image == DEMO_IMAGE else desk.upload(image)
    if problem:
        return 2, problem
    key = DEMO_IMAGE if uploaded is None else UPLOADED
    frames = list(desk.run("ann", key, uploaded, QUESTION, row_of([Choice("grid", 50)]), 2))
    return (2 if frames[-1].alert else 0), frames[-1].alert


def _peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
