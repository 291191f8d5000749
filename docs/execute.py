"""Makes the notebooks of `docs/notebooks` from the scripts beside them, and runs them: `make notebooks`.

A script has cells that begin with `# %%`, text cells with `# %% [markdown]`. Output is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Cell", "cells", "notebook"]

FOLDER = Path(__file__).parent / "notebooks"
LIMIT = 150_000  # bytes of one notebook


class Cell(NamedTuple):
    """A piece of a script."""

    markdown: bool
    source: str


def cells(script: str) -> list[Cell]:
    """The cells of a script in the percent format."""
    found = []
    for mark, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n)*)", script, re.MULTILINE):
        text = body.strip()
        markdown = mark.strip() == "[markdown]"
        found.append(Cell(markdown, re.sub(r"^# ?", "", text, flags=re.MULTILINE) if markdown else text))
    return found


def notebook(script: Iterable[Cell]) -> dict[str, Any]:
    """The cells as a notebook that was not run yet."""
    made = []
    for number, cell in enumerate(script):
        entry: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}, "source": cell.source}
        if cell.markdown:
            made.append({"cell_type": "markdown", **entry})
        else:
            made.append({"cell_type": "code", "execution_count": None, "outputs": [], **entry})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def tidy(executed: dict[str, Any]) -> dict[str, Any]:
    """Without what belongs to one run or one machine: times of cells, progress bars, language versions."""
    executed["metadata"].pop("language_info", None)
    for cell in executed["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"] = list(tidy_outputs(cell["outputs"]))
    return executed


def tidy_outputs(outputs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Printed lines in one piece, and one format of everything that shows itself in several."""
    printed = "".join(out["text"] for out in outputs if out.get("name") == "stdout")
    if printed:
        yield {"output_type": "stream", "name": "stdout", "text": printed}
    for out in outputs:
        data = out.get("data", {})
        rich = sorted((key for key in data if key.startswith(("image/", "text/html"))), key=lambda key: len(data[key]))
        if rich:
            out["data"] = {rich[0]: data[rich[0]]}
        if data:
            yield out


def main() -> None:
    """Run every script as a notebook and write it.

    Raises:
        ValueError: a notebook is larger than a repository should carry.
    """
    import nbformat
    from nbclient import NotebookClient

    for script in sorted(FOLDER.glob("*.py")):
        book = nbformat.from_dict(notebook(cells(script.read_text(encoding="utf-8"))))
        NotebookClient(
            book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
        ).execute()
        text = json.dumps(tidy(book), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        if len(text) > LIMIT:
            raise ValueError(f"{script.stem}: {len(text):,} bytes, at most {LIMIT:,}")
        script.with_suffix(".ipynb").write_text(text, encoding="utf-8")
        print(f"{script.with_suffix('.ipynb').name} {len(text):,} bytes")


if __name__ == "__main__":
    main()
