"""Writes docs/errors/*.md, a page for every error, from texts in the package: `python -m docs.error_pages`."""

from __future__ import annotations

from pathlib import Path

from vlm_pruner.errors import HELP, explained

__all__ = ["pages"]

FOLDER = Path(__file__).parent / "errors"

INTRO = """# Errors, one by one

<!-- Made by `python -m docs.error_pages` from src/vlm_pruner/help; do not edit. -->

Every error that this library raises on purpose has a page that says what you see, why, and what to do. A command prints
the error as one line that ends with the name of its page; in Python the name stands below the traceback:

```text
error: unknown method 'vlm-prunner'; did you mean 'vlm-pruner'? [vlm-pruner explain plan]
```

`vlm-pruner explain plan` prints the same page in the terminal, without a network. A command that ends with an error
has the exit code 2.

| code | error |
| --- | --- |
"""
OUTRO = """
All of them are `vlm_pruner.VlmPrunerError`. Any other exception comes from transformers, torch or your own code, or is
a bug in this library. Symptoms without an error (it is not faster, the answer got worse) are on
[another page](../troubleshooting.md).
"""


def pages() -> dict[Path, str]:
    """Every page and what it should say; the first one lists the others."""
    texts = {code: explained(code) for code in HELP}
    rows = "".join(
        f"| [`{code}`]({code}.md) | `{text.splitlines()[0].removeprefix('# ')}` |\n" for code, text in texts.items()
    )
    return {FOLDER / "index.md": INTRO + rows + OUTRO, **{FOLDER / f"{code}.md": text for code, text in texts.items()}}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {len(pages())} pages in {FOLDER}")
