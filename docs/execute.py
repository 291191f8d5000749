"""Makes the notebooks of `docs/notebooks` from the scripts beside them, and runs them: `make notebooks`.

A script has cells that begin with `# %%`, text cells with `# %% [markdown]`. Output is kept. Each notebook is also
written as a page (.md, with its pictures in files beside it), which the site and a code host show as they are.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Cell", "cells", "notebook", "page"]

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


def page(name: str, book: dict[str, Any]) -> dict[str, str | bytes]:
    """An executed notebook as Markdown: the files that make it, by name; first the page, then its pictures."""
    files: dict[str, str | bytes] = {f"{name}.md": ""}
    parts = []
    for number, cell in enumerate(book["cells"]):
        if cell["cell_type"] == "markdown":
            parts.append(_source(cell))
            continue
        parts.append(f"```python\n{_source(cell)}\n```")
        for out in cell["outputs"]:
            parts.append(_shown(out, f"{name}-{number}", files))
    title, *rest = parts[0].split("\n", 1)
    note = f"*This page is a notebook that was run: [download it]({name}.ipynb), or open its [script]({name}.py).*"
    files[f"{name}.md"] = "\n\n".join([title, note, "".join(rest).strip(), *parts[1:]]).strip() + "\n"
    return files


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _shown(out: dict[str, Any], stem: str, files: dict[str, str | bytes]) -> str:
    """One output as Markdown; a picture becomes one of `files`."""
    if out["output_type"] == "stream":
        return f"```text\n{''.join(out['text']).rstrip()}\n```"
    ((kind, data),) = out["data"].items()
    text = "".join(data)
    if kind.startswith("image/"):
        picture = f"{stem}.{'jpg' if kind.endswith('jpeg') else 'png'}"
        files[picture] = base64.b64decode(text)
        return f"![output of the cell above]({picture})"
    return "".join(text.splitlines()) if kind == "text/html" else f"```text\n{text}\n```"


def write_page(name: str, book: dict[str, Any]) -> None:
    """Write a notebook's page and pictures in place of the old ones."""
    for old in FOLDER.glob(f"{name}-*"):
        old.unlink()
    for file, content in page(name, book).items():
        (FOLDER / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def main() -> None:
    """Run every script as a notebook and write it, and its page.

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
        write_page(script.stem, json.loads(text))
        print(f"{script.with_suffix('.ipynb').name} {len(text):,} bytes")


if __name__ == "__main__":
    main()
