"""transformers' own generation tests for two families, with a keep=1.0 pruner on every model that they build.

Every test runs twice, without and with the pruner: what fails without one says nothing about pruning and is listed as
such. What passes without and fails with a pruner must stand in `NOT_APPLICABLE` with its reason, else no result.

The test files are not in the wheel, and the source distribution has only those directly in `tests/`. So they are taken
at run time from a checkout of the repository: `--checkout DIR` (a working tree, or a git directory with `--revision`),
or a shallow clone of the tag of the installed version. From a checkout of another version, the files that the source
distribution of the installed version has replace the checkout's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import transformers
from benchmarks.common import Report, arguments, prepare

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/huggingface/transformers"
TAKEN = ("tests", "utils", "conftest.py", "pyproject.toml", "src/transformers/__init__.py")
NEEDED = ("parameterized", "psutil")  # by the tests
FAMILIES = {
    "llava": "tests/models/llava/test_modeling_llava.py",
    "qwen2_5_vl": "tests/models/qwen2_5_vl/test_modeling_qwen2_5_vl.py",
}
NOT_APPLICABLE: dict[str, str] = {}
"""Tests that cannot hold for a pruned model, and why."""


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command that must succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return done


def take_tests(options: argparse.Namespace, folder: Path) -> str:
    """Lay the test files out in `folder`; the version that they are of."""
    source = options.checkout
    if source is None:
        source, tag = folder / "clone", f"v{transformers.__version__}"
        run("git", "clone", "--quiet", "--depth", "1", "--branch", tag, REPOSITORY, source)
    if (source / "tests").is_dir():
        for name in TAKEN:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy: Any = shutil.copytree if (source / name).is_dir() else shutil.copy
            copy(source / name, folder / name)
    else:
        archive = folder / "tests.tar"
        run("git", f"--git-dir={source}", "archive", "-o", archive, options.revision, *TAKEN)
        _unpack(archive, folder)
    package = folder / "src" / "transformers"
    said = re.search(r'^__version__ = "(.+)"', (package / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    shutil.rmtree(package)  # the tests read the package's own files here: those of the installed one
    package.symlink_to(Path(transformers.__file__).parent, target_is_directory=True)
    return said.group(1) if said else "unknown"


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")


def take_source_distribution(folder: Path) -> None:
    """Replace the files directly in `tests/` by those of the installed version."""
    wanted, loads = f"transformers=={transformers.__version__}", folder / "sdist"
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "transformers", "-d", loads, wanted)
    _unpack(next(loads.glob("*.tar.gz")), loads)
    for path in next(loads.glob("*/tests")).glob("*.py"):
        shutil.copy(path, folder / "tests" / path.name)


def outcomes(folder: Path, path: str, pruner: bool, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Outcome of every generation test of one file, in a process of its own."""
    found = folder / "outcomes.json"
    found.unlink(missing_ok=True)
    environment = os.environ | {
        "UPSTREAM_PRUNER": str(int(pruner)),
        "UPSTREAM_OUTCOMES": str(found),
        "PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "site", ROOT, ROOT / "src"))),
        "OMP_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "") if options.device == "cuda" else "",
    }
    command = [sys.executable, "-m", "pytest", path, "-q", "-p", "benchmarks.upstream_plugin", "-p", "no:cacheprovider"]
    command += ["-W", "ignore", "-k", options.only] if options.only else ["-W", "ignore"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if not found.exists():
        raise SystemExit(f"{path} could not be run:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    result: dict[str, dict[str, Any]] = json.loads(found.read_text(encoding="utf-8"))
    return result


def compare(report: Report, family: str, alone: dict[str, Any], pruned: dict[str, Any]) -> None:
    """One row for the family, one for every test that did not pass, and the checks.

    A reason is needed only for what a pruner alone breaks.
    """
    if alone.keys() != pruned.keys():
        report.check(False, f"{family}: the two runs collected different tests")
        return
    by = {name: (run_["outcome"], pruned[name]["outcome"]) for name, run_ in alone.items()}
    passed = [name for name, pair in by.items() if pair == ("passed", "passed")]
    broken = [name for name, pair in by.items() if pair[0] == "passed" and pair[1] != "passed"]
    row = report.row(family, tests=len(by), passed=len(passed))
    row["skipped_by_transformers"] = sum(pair == ("skipped", "skipped") for pair in by.values())
    row["fail_without_pruner"] = sum(pair[0] == "failed" for pair in by.values())
    row["not_applicable"] = sum(name in NOT_APPLICABLE for name in broken)
    row["models_built"] = sum(run_["models"] for run_ in pruned.values())
    row["images_seen_in"] = sum(bool(run_["prefills"]) for run_ in pruned.values())
    row["seconds"] = sum(run_["seconds"] for run_ in pruned.values())
    report.check(row["images_seen_in"] > 0 or report.options.quick, f"{family}: no test ever reached a pruner")
    for name in sorted(set(by) - set(passed)):
        said = NOT_APPLICABLE.get(name) if name in broken else alone[name].get("said", "")
        kind = {"passed": "not applicable", "skipped": "skipped", "failed": "fails without pruner"}[by[name][0]]
        report.row(f"{family}: {name}", outcome=kind, reason=said)
        report.check(name not in broken or said is not None, f"{family}: {name}: {pruned[name].get('said')}")


def main(options: argparse.Namespace) -> None:
    """Fetch, run, compare, print."""
    report = Report("upstream_tests", options, prepare(options))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        version = take_tests(options, folder)
        if version != transformers.__version__:
            take_source_distribution(folder)
        run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder / "site", *NEEDED)
        report.row("versions", tests_of=version, transformers=transformers.__version__)
        for family, path in FAMILIES.items():
            alone, pruned = (outcomes(folder, path, pruner, options) for pruner in (False, True))
            compare(report, family, alone, pruned)
    report.finish()


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--checkout", type=Path, help="working tree or git directory of the repository")
    parser.add_argument("--revision", default="HEAD", help="with a git directory: what to read from it")
    parser.add_argument("--only", help="pytest's -k")
    main(parser.parse_args())
