"""Does the chat server stand, count rightly and stay small under mixed requests, and how long do they take?

    python -m benchmarks.soak [--minutes 30] [--clients 16]            writes results/soak.json

`vlm-pruner serve embedded` in a process of its own. Clients send, at random, questions with 64 tokens, questions with
all tokens, streams, broken pictures, forbidden URLs, plans that cannot be had, and leave in the middle of an answer.
Every answer's counts are checked. Memory is that of the server, read through /proc.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import Report, arguments, prepare

from vlm_pruner.scenes import DEMO

__all__ = ["main"]

URL = f"data:image/png;base64,{base64.b64encode(DEMO.read_bytes()).decode()}"
KINDS = ("pruned", "whole", "stream", "broken picture", "forbidden url", "no plan", "leaves")
WARM = 0.25  # share of the time after which memory should have settled


def request(kind: str) -> dict[str, Any]:
    """The body of a request of this kind."""
    url = {"broken picture": URL[:200], "forbidden url": "http://169.254.169.254/"}.get(kind, URL)
    plans = {"whole": {"method": "none"}, "no plan": {"keep": 64, "method": "nothing"}}
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is the word?"}]
    made = {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "stream": kind == "stream"}
    return made | ({"vlm_pruner": plans[kind]} if kind in plans else {})


class Clients:
    """What all clients have seen."""

    def __init__(self, address: str, end: float) -> None:
        self.address, self.end = address, end
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.status: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, seed: int) -> None:
        """One client until the end."""
        lots = random.Random(seed)
        while time.monotonic() < self.end:
            kind = lots.choice(KINDS)
            began = time.perf_counter()
            try:
                self._one(kind, lots)
            except Exception as error:
                self.wrong.append(f"{kind}: {error!r}")
            self.seconds[kind].append(time.perf_counter() - began)

    def _one(self, kind: str, lots: random.Random) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=300)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(request(kind)))
            if kind == "leaves":
                time.sleep(lots.uniform(0.0, 0.5))
                return
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        self.status[f"{kind} {answer.status}"] += 1
        if answer.status == 503:
            return
        wanted = {"pruned": 200, "whole": 200, "stream": 200}.get(kind, 400)
        if answer.status != wanted:
            self.wrong.append(f"{kind}: {answer.status} {text[:200]}")
        elif wanted == 200:
            last = text.split("data: ")[-2] if kind == "stream" else text
            found = json.loads(last)["vlm_pruner"]
            if (found["total"], found["kept"]) != (576, 576 if kind == "whole" else 64):
                self.wrong.append(f"{kind}: {found}")


def _memory(process: int) -> int:
    """Resident bytes."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=16)
    given = parser.parse_args()
    report = Report("soak", given, prepare(given))
    minutes = 0.2 if given.quick else given.minutes
    words = [sys.executable, "-m", "vlm_pruner", "serve", "embedded", "--keep", "64", "--port", "0"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split("http://")[1].split("/v1")[0]
        began = time.monotonic()
        clients = Clients(address, began + minutes * 60)
        threads = [threading.Thread(target=clients.run, args=(seed,), daemon=True) for seed in range(given.clients)]
        for thread in threads:
            thread.start()
        sizes = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            if time.monotonic() - began > WARM * minutes * 60:
                sizes.append(_memory(server.pid))
        report.check(server.poll() is None, "the server ended")
    finally:
        server.terminate()
        server.wait()
    report.check(not clients.wrong, f"{len(clients.wrong)} wrong: {clients.wrong[:3]}")
    for kind in KINDS:
        values = sorted(clients.seconds[kind])
        if values:
            p50, p95 = (values[min(len(values) - 1, int(share * len(values)))] for share in (0.5, 0.95))
            report.row(kind, requests=len(values), p50_s=p50, p95_s=p95)
    report.row("status", **{key.replace(" ", "_"): count for key, count in sorted(clients.status.items())})
    half = len(sizes) // 2
    growth = max(sizes[half:]) / max(sizes[: half or 1]) - 1
    report.row("memory after the warm-up", most_mb=max(sizes) / 1e6, growth=growth)
    report.aim("growth of memory from the first half to the second", growth, 0.05)
    report.finish()


if __name__ == "__main__":
    main()
