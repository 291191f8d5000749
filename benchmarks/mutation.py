"""Breaks the library on purpose, one place at a time, and counts how many of the breaks the tests find.

Works on a copy of the source in a temporary folder. Before anything is broken, all the tests that are to find something
must pass. A break that no test finds is named, and the run fails.

With `--random`, breaks are drawn from the syntax tree of all rooms. They need to know which tests run which line:
`make coverage` notes it. The run fails if fewer than 93 in 100 are found, those left out that `EQUIVALENT` explains.
Rows are noted as they are found. With `--survivors`, only what was not found is tried again; rows say what was found at
first.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import tests.conftest  # noqa: F401  # decides whether kernels are interpreted, before anything imports Triton

# isort: split
import pytest
from benchmarks.common import RESULTS, Report, arguments, prepare
from benchmarks.mutants import ENGINE, Mutant
from benchmarks.mutants_choice import CHOICE
from benchmarks.mutants_layers import LAYERS
from benchmarks.mutants_random import EQUIVALENT, draw
from benchmarks.mutants_web import PAGE

MUTANTS = (*ENGINE, *LAYERS, *CHOICE, *PAGE)
ROOT = Path(__file__).parents[1]
LIMIT = 600  # seconds for the tests of one break: a hang is found, too
NOTED = ROOT / "out" / "mutation_random.jsonl"  # rows of drawn breaks as they are found
MISSED = 7  # percent of drawn breaks that may go unseen


def warm_up() -> None:
    """Import what every test needs, and build the models that most of them use, once for all breaks."""
    from tests.support.families import tiny

    for name in ("llava", "llava_next", "qwen2_vl", "qwen3_vl"):
        tiny(name)
        tiny(name, "eager")


def run(source: Path, tests: str, without: Sequence[str] = ()) -> tuple[bool, str]:
    """Do these tests pass on that source, some left out? Beside it, the first that failed. In a forked process."""
    command = ["-x", "-q", "-W", "ignore", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    for part in shlex.split(tests):
        path = ROOT / "tests" / part
        command.append(str(path) if Path(str(path).partition("::")[0]).exists() else part)
    command += [f"--deselect=tests/{test}" for test in without]
    with tempfile.NamedTemporaryFile("r") as output:
        process = os.fork()
        if not process:
            _test(source, command, output.name)
        status, ended = 0, 0
        until = time.perf_counter() + LIMIT
        while not ended and time.perf_counter() < until:
            time.sleep(0.05)
            ended, status = os.waitpid(process, os.WNOHANG)
        if not ended:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return False, "timeout"
        said = output.read()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # a kernel that writes beyond its memory
        return False, f"signal {-code}"
    if code not in (0, 1, 5) and "ERROR collecting" not in said:  # a break may show when a test file is imported
        raise SystemExit(f"pytest could not run {tests!r} ({code}):\n{said[-3000:]}")
    lines = [line for line in said.splitlines() if line.startswith(("FAILED ", "ERROR tests"))]
    failed = [line.partition(" ")[2].partition(" - ")[0] for line in lines]
    return code != 1 and not failed, failed[0].removeprefix("tests/") if failed else ""


def _test(source: Path, command: list[str], output: str) -> NoReturn:
    """The forked process: run pytest on that source and leave."""
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    # What this process has of the library is whole; the break is imported anew.
    for name in [n for n in sys.modules if n.partition(".")[0] == "vlm_pruner"]:
        del sys.modules[name]
    sys.path.insert(0, str(source))
    code = 3
    try:
        code = int(pytest.main(command))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def broken(source: Path, mutant: Mutant) -> str:
    """Write the break; what stood there before.

    Raises:
        SystemExit: the place is not there, or more than once.
    """
    path = source / "vlm_pruner" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.old!r} stands {text.count(mutant.old)} times in {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    return text


def _noted() -> list[dict[str, Any]]:
    """Rows of drawn breaks of earlier runs in this checkout."""
    lines = NOTED.read_text(encoding="utf-8").splitlines() if NOTED.exists() else []
    return [json.loads(line) for line in lines]


def _others(names: set[str]) -> list[dict[str, Any]]:
    """Rows of the last run about other breaks than those chosen now."""
    path = RESULTS / "mutation.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return [row for row in rows if row["name"] in names]


def _survives(source: Path, mutant: Mutant, sure: bool) -> tuple[bool, str]:
    """Do its tests pass although the place is broken? Beside the answer, the first test that failed.

    Args:
        sure: all its tests pass on the whole source; else one that fails there as well is left out.
    """
    without: list[str] = []
    while True:
        before = broken(source, mutant)
        try:
            survived, where = run(source, mutant.tests, without)
        finally:
            (source / "vlm_pruner" / mutant.file).write_text(before, encoding="utf-8")
        if survived or sure or "::" not in where or run(source, shlex.quote(where))[0]:
            return survived, where
        without.append(where)


def main(options: argparse.Namespace) -> None:
    """Break, test, mend, count."""
    device = prepare(options)
    drawn = options.random and draw(ROOT / "src" / "vlm_pruner", options.random, options.seed, options.coverage)
    chosen = [m for m in drawn or MUTANTS if options.only in m.name or m.file.startswith(options.only)]
    found_before = {row["name"]: row for row in _noted() if row["found"]} if options.survivors else {}
    chosen = [m for m in chosen if m.name not in found_before]
    chosen = chosen[: 2 if options.quick else None]
    report = Report("mutation_random" if drawn else "mutation", options, device)
    sys.dont_write_bytecode = True
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "ASSETS.md", folder)  # read by tests, beside the source
        for tests in [] if options.no_baseline or drawn else dict.fromkeys(m.tests for m in chosen):
            passed, where = run(source, tests)
            report.check(passed, f"nothing is broken, yet {where} fails")
        for mutant in chosen:
            started = time.perf_counter()
            survived, where = _survives(source, mutant, sure=not drawn)
            verdict = "SURVIVED" if survived else "found"
            print(f"{verdict:8} {mutant.name}  {where}  ({time.perf_counter() - started:.0f} s)", flush=True)
            why = EQUIVALENT.get(mutant.name.rpartition(", line ")[0]) if survived else None
            equal = {} if why is None else {"equivalent": why}
            row = report.row(mutant.name, file=mutant.file, found=not survived, by=where, **equal)
            if drawn:
                with NOTED.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    report.rows += found_before.values()
    at_first = {row["name"]: row["found"] for row in reversed(_noted())}
    for row in report.rows if drawn else []:
        row["at_first"] = at_first[row["name"]]
    report.rows += _others({m.name for m in MUTANTS} - {m.name for m in chosen}) if options.only and not drawn else []
    counted = [row for row in report.rows if "equivalent" not in row]
    missed = sum(not row["found"] for row in counted)
    most = len(counted) * MISSED // 100 if drawn else 0
    report.aim(f"breaks that no test finds, of {len(counted)}{' drawn by chance' if drawn else ''}", missed, most)
    report.finish()
    if missed > most:
        raise SystemExit("some breaks were not found")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help="breaks with this in the name, or in files below it; others stay")
    parser.add_argument("--no-baseline", action="store_true", help="trust that the tests pass on the unbroken source")
    parser.add_argument(
        "--random", type=int, default=0, metavar="N", help="draw N breaks in place of those of the list"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--survivors", action="store_true", help="of the drawn ones, those not found by earlier runs")
    parser.add_argument("--coverage", type=Path, default=ROOT / "out" / "coverage", help="left by `make coverage`")
    main(parser.parse_args())
