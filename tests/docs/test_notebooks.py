"""The notebooks are what their scripts say, were run, and run."""

from __future__ import annotations

import json
import runpy

import pytest
from docs.execute import FOLDER, LIMIT, Cell, cells, notebook, page

SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_a_script_is_cut_into_cells():
    script = "# %% [markdown]\n# # Title\n# text\n\n# %%\nx = 1\n\n\n# %%\nx  # shown\n"
    assert cells(script) == [Cell(True, "# Title\ntext"), Cell(False, "x = 1"), Cell(False, "x  # shown")]


def test_there_are_two():
    assert len(SCRIPTS) >= 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_is_fresh_executed_and_small(script):
    text = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    book, fresh = json.loads(text), notebook(cells(script.read_text(encoding="utf-8")))
    sources = ["".join(cell["source"]) for cell in book["cells"]]
    assert sources == [cell["source"] for cell in fresh["cells"]], "run `make notebooks`"
    outputs = [out for cell in book["cells"] for out in cell.get("outputs", [])]
    assert len(outputs) >= 3
    assert not [out for out in outputs if out["output_type"] == "error"]
    assert len(text) <= LIMIT


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_page_is_what_the_notebook_shows(script):
    book = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    files = page(script.stem, book)
    found = {path.name: path.read_bytes() for path in [*FOLDER.glob(f"{script.stem}-*"), script.with_suffix(".md")]}
    assert found == {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
    outputs = [out for cell in book["cells"] for out in cell.get("outputs", [])]
    pictures = [kind for out in outputs for kind in out.get("data", {}) if kind.startswith("image/")]
    assert len(files) == 1 + len(pictures)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_code_runs(script):
    assert "session" in runpy.run_path(str(script))
