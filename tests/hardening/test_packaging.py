"""What a package owes its users: a version that says what changed, types, completion, whole sources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import vlm_pruner
from vlm_pruner import errors

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_semantic_and_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", vlm_pruner.__version__)
    assert vlm_pruner.__version__ == PROJECT["project"]["version"]
    assert f"## {vlm_pruner.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_types_are_shipped() -> None:
    assert (Path(vlm_pruner.__file__).parent / "py.typed").is_file()


def test_what_the_archive_of_sources_names_is_there() -> None:
    named = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_extra_that_an_error_names_can_be_installed() -> None:
    assert set(errors.EXTRAS.values()) <= PROJECT["project"]["optional-dependencies"].keys()


def test_shells_complete_commands() -> None:
    asked = {"_VLM_PRUNER_COMPLETE": "complete_bash", "COMP_WORDS": "vlm-pruner re", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'vlm-pruner'; from vlm_pruner.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split() == ["report"]
