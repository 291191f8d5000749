"""Coverage-guided fuzzing of what strangers hand in: plans, pictures, videos, chat requests.

    python -m benchmarks.fuzz [--cpu-minutes 60]                       writes results/fuzz.json

Needs atheris: pip install 'vlm-pruner[hardening]'. Targets are those of `benchmarks.fuzz_targets`, each in processes of
libFuzzer, by turns, until together they have had so much time of a processor. What they find interesting is kept in
out/fuzz, and is where the next run starts from. An input that breaks a target is kept there as well, is told, and there
are no figures then.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import Report, arguments, prepare
from benchmarks.fuzz_targets import NAMES

__all__ = ["main"]

ROUND = 90  # seconds of one process
HANG, MOST_MB = 300, 6000  # seconds and memory at which an input is one that breaks
COUNT = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def one_round(name: str, folder: Path, seconds: int) -> dict[str, Any]:
    """Inputs that were tried, seconds of a processor, and what broke."""
    words = [
        sys.executable, "-m", "benchmarks.fuzz_targets", name, str(folder / name), f"-max_total_time={seconds}",
        "-print_final_stats=1", f"-timeout={HANG}", f"-rss_limit_mb={MOST_MB}", f"-artifact_prefix={folder}/{name}-",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = COUNT.search(done.stderr)
    return {
        "inputs": int(found[1]) if found else 0,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "broken": "" if done.returncode == 0 and found else done.stderr[-3000:],
    }


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--cpu-minutes", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=600.0, help="by the clock, after which it ends in any case")
    parser.add_argument("--targets", default=",".join(NAMES))
    given = parser.parse_args()
    report = Report("fuzz", given, prepare(given))
    folder = Path("out/fuzz")
    folder.mkdir(parents=True, exist_ok=True)
    names = given.targets.split(",")
    wanted = (0.2 if given.quick else given.cpu_minutes) * 60 / len(names)
    total: dict[str, dict[str, Any]] = {name: {"inputs": 0, "cpu": 0.0} for name in names}
    end = time.monotonic() + given.minutes * 60
    while time.monotonic() < end and (behind := [name for name in names if total[name]["cpu"] < wanted]):
        name = min(behind, key=lambda one: total[one]["cpu"])
        made = one_round(name, folder, 5 if given.quick else ROUND)
        if made["broken"]:
            print(f"{name}:\n{made['broken']}", flush=True)
            raise SystemExit(f"{name} broke: the input lies in {folder}")
        for key in ("inputs", "cpu"):
            total[name][key] += made[key]
        print(name, total[name], flush=True)
    for name in names:
        report.row(name, inputs=total[name]["inputs"], cpu_minutes=total[name]["cpu"] / 60, crashes=0)
    minutes = sum(t["cpu"] for t in total.values()) / 60
    report.row("together", inputs=sum(t["inputs"] for t in total.values()), cpu_minutes=minutes, crashes=0)
    report.aim("minutes of fuzzing that are missing to an hour", max(0.0, 60 - minutes), 0.0)
    report.finish()


if __name__ == "__main__":
    main()
