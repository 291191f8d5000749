"""Breaks the engine on purpose, one place at a time, and counts how many of the breaks the tests find.

Works on a copy of the source in a temporary folder. Before anything is broken, all the tests that are to find something
must pass. A break that no test finds is named, and the run fails.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Report, arguments, prepare
from benchmarks.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
LIMIT = 600  # seconds for the tests of one break: a hang is found, too


def run(source: Path, tests: str) -> tuple[bool, str]:
    """Do these tests pass on that source? Beside the answer, the first test that failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    for part in shlex.split(tests):
        path = ROOT / "tests" / part
        command.append(str(path) if path.exists() else part)
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False, "timeout"
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests!r}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return done.returncode == 0, failed[0].removeprefix("tests/") if failed else ""


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


def main(options: argparse.Namespace) -> None:
    """Break, test, mend, count."""
    device = prepare(options)
    chosen = [m for m in MUTANTS if not options.only or options.only in m.name][: 2 if options.quick else None]
    report = Report("mutation", options, device)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for tests in [] if options.no_baseline else dict.fromkeys(m.tests for m in chosen):
            passed, where = run(source, tests)
            report.check(passed, f"nothing is broken, yet {where} fails")
        for mutant in chosen:
            before, started = broken(source, mutant), time.perf_counter()
            survived, where = run(source, mutant.tests)
            (source / "vlm_pruner" / mutant.file).write_text(before, encoding="utf-8")
            verdict = "SURVIVED" if survived else "found"
            print(f"{verdict:8} {mutant.name}  {where}  ({time.perf_counter() - started:.0f} s)", flush=True)
            report.row(mutant.name, file=mutant.file, found=not survived, by=where)
    found = sum(row["found"] for row in report.rows)
    report.aim(f"breaks that no test finds, of {len(report.rows)}", len(report.rows) - found, 0)
    report.finish()
    if found < len(report.rows):
        raise SystemExit("some breaks were not found")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help="breaks whose name contains this")
    parser.add_argument("--no-baseline", action="store_true", help="trust that the tests pass on the unbroken source")
    main(parser.parse_args())
