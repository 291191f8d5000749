"""Counters of a server, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter

from vlm_pruner.report import PruneReport

__all__ = ["Metrics"]

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds
COUNTERS = {
    "images": "pictures that were read",
    "visual_tokens": "visual tokens before pruning",
    "kept_tokens": "visual tokens after the last stage",
    "generated_tokens": "tokens of answers",
    "cancelled": "questions whose client left",
}
TIMES = {
    "first_token": "to the first token, without the time in the queue",
    "request": "of a whole question, with the time in the queue",
}


class Metrics:
    """Of one server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status: Counter[int] = Counter()
        self._count: Counter[str] = Counter()
        self._times = {name: [0] * (len(BUCKETS) + 1) for name in TIMES}
        self._sums = dict.fromkeys(TIMES, 0.0)

    def answered(self, status: int, seconds: float) -> None:
        """A question ended with this status."""
        with self._lock:
            self._status[status] += 1
            self._observe("request", seconds)

    def ran(self, report: PruneReport, tokens: int, first_token: float) -> None:
        """The model answered.

        Args:
            first_token: seconds.
        """
        with self._lock:
            found = (len(report.images), report.total, report.kept, tokens)
            self._count.update(dict(zip(COUNTERS, found, strict=False)))
            self._observe("first_token", first_token)

    def cancelled(self) -> None:
        """A client left before its answer was there."""
        with self._lock:
            self._count["cancelled"] += 1

    def text(self, waiting: int) -> str:
        """All of them.

        Args:
            waiting: requests that wait or are answered now.
        """
        with self._lock:
            lines = ["# HELP vlm_pruner_requests_total questions by status", "# TYPE vlm_pruner_requests_total counter"]
            lines += [f'vlm_pruner_requests_total{{code="{c}"}} {n}' for c, n in sorted(self._status.items())]
            for name, what in COUNTERS.items():
                lines += [f"# HELP vlm_pruner_{name}_total {what}", f"# TYPE vlm_pruner_{name}_total counter"]
                lines.append(f"vlm_pruner_{name}_total {self._count[name]}")
            lines += ["# HELP vlm_pruner_queue requests that wait or are answered", "# TYPE vlm_pruner_queue gauge"]
            lines.append(f"vlm_pruner_queue {waiting}")
            for name, what in TIMES.items():
                lines += self._histogram(f"vlm_pruner_{name}_seconds", what, self._times[name], self._sums[name])
        return "\n".join(lines) + "\n"

    def _observe(self, name: str, seconds: float) -> None:
        self._times[name][sum(seconds > bound for bound in BUCKETS)] += 1
        self._sums[name] += seconds

    def _histogram(self, name: str, what: str, counts: list[int], total: float) -> list[str]:
        lines = [f"# HELP {name} {what}", f"# TYPE {name} histogram"]
        for place, bound in enumerate([*map(str, BUCKETS), "+Inf"], 1):
            lines.append(f'{name}_bucket{{le="{bound}"}} {sum(counts[:place])}')
        return [*lines, f"{name}_sum {total:.6f}", f"{name}_count {sum(counts)}"]
