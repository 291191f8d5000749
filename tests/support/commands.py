"""Commands from the outside, and what they may say on stderr."""

from __future__ import annotations

import re
from typing import Any

from typer.testing import CliRunner

from vlm_pruner.cli import app
from vlm_pruner.errors import HELP

__all__ = ["PROGRESS", "complaint", "run"]

PROGRESS = re.compile(r".*, \d+ s|.* GB of random weights are allocated in \w+ on \S+")


def run(*words: object, **options: Any) -> Any:
    """The result of a command line."""
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def complaint(result: Any, *, stdout: bool = False) -> str:
    """The error line: one line, without a trace, after nothing but progress, with exit code 2.

    It ends with the command that explains it, which is taken off. `stdout` allows results to be there already; by
    default nothing may be.
    """
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert stdout or result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not PROGRESS.fullmatch(line)]
    assert len(lines) == 1, lines
    line, hint, code = lines[0].strip().rpartition(" [vlm-pruner explain ")
    assert hint
    assert code.removesuffix("]") in HELP
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
