"""Does a model stay as it is, and as small, while pruning is put on and taken off, and while many threads ask it?

    python -m benchmarks.attached [--calls 1000] [--threads-asking 8] [--each 50]        writes results/attached.json

A tiny random model; what is promised is that nothing leaks, not how fast it is. Memory is the resident set of the
process, read after a quarter of the calls and at the end, garbage collected.
"""

from __future__ import annotations

import gc
import time

from benchmarks.common import Report, arguments, prepare
from benchmarks.memory import resident
from tests.support.steady import in_turn, interleaved

__all__ = ["main"]


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--threads-asking", type=int, default=8)
    parser.add_argument("--each", type=int, default=50)
    options = parser.parse_args()
    report = Report("attached", options, prepare(options))
    calls, each = (40, 3) if options.quick else (options.calls, options.each)
    sizes: list[int] = []

    def look() -> None:
        if len(sizes) % 25 == 0:
            gc.collect()
        sizes.append(resident("VmRSS"))

    began = time.process_time()
    left, wrong = in_turn(calls, look)
    report.check(not wrong, f"{len(wrong)} answers changed: {wrong[:2]}")
    first, last = max(sizes[calls // 5 : calls // 4]), max(sizes[-calls // 20 :])
    growth = last / first - 1
    report.row("attached and detached in turn", calls=calls, changed_answers=len(wrong), hooks_left=left,
               resident_mb=last / 1e6, growth=growth, cpu_seconds=time.process_time() - began)  # fmt: skip
    wrong = interleaved(options.threads_asking, each)
    report.check(not wrong, f"{len(wrong)} answers of threads differ: {wrong[:2]}")
    report.row(f"{options.threads_asking} threads at once", calls=options.threads_asking * each,
               changed_answers=len(wrong))  # fmt: skip
    report.aim("growth of resident memory over 1,000 calls, pruned and unpruned in turn", growth, 0.01)
    report.aim("hooks that are left on the model afterwards", left, 0)
    report.finish()


if __name__ == "__main__":
    main()
