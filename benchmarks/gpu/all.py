"""Every benchmark of speed and memory on one GPU, each in a process of its own; results in `results/gpu/`.

`--device cpu --quick` runs the same commands on a CPU at their smallest sizes, to show that they work: no figures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.common import RESULTS, arguments, prepare

BENCHMARKS = ("gpu.kernels", "gpu.first_token", "selection", "prefill", "decode", "overhead", "memory", "scale")


def main(options: argparse.Namespace) -> None:
    """Run all, name those that failed.

    Raises:
        SystemExit: one of them failed.
    """
    prepare(options)
    failed = []
    for name in options.only.split(","):
        command = [sys.executable, "-m", f"benchmarks.{name}", "--device", options.device]
        if options.quick:
            command.append("--quick")
        else:
            command += ["--out", str(RESULTS / "gpu" / f"{name.removeprefix('gpu.')}.json")]
        print(f"== {name}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    parser = arguments(__doc__ or "", device="cuda")
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="names with commas between")
    main(parser.parse_args())
