"""Does a pruned server stand, count rightly and stay small under mixed requests, and how long do they take?

    python -m benchmarks.soak [--minutes 30] [--clients 16]            writes results/soak.json
    python -m benchmarks.soak --server vllm                            writes results/soak_vllm.json

`vlm-pruner serve` or `vllm serve` with the embedded model, in a process of its own. Clients send, at random, questions
with 64 tokens, questions with all tokens, streams, broken pictures, forbidden URLs, plans that cannot be had, and leave
in the middle of an answer. No picture is sent twice: vLLM would not compute it again. Every answer's counts are
checked. Memory is that of the server and its children, read through /proc.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import Report, arguments, prepare
from PIL import Image

from vlm_pruner.scenes import DEMO

__all__ = ["main"]

KINDS = ("pruned", "whole", "stream", "broken picture", "forbidden url", "no plan", "leaves")
WARM = 0.25  # share of the time after which memory should have settled
KEEP, ALL = 64, 576
START_SECONDS, ANSWER_SECONDS = 900, 1800  # a busy machine is slow, which is no fault of a server
KINDS_WITH_PLANS: dict[str, Any] = {"whole": {"method": "none"}, "no plan": {"keep": 64, "method": "nothing"}}


def picture(lots: random.Random) -> str:
    """The demo picture with a few pixels that no other has, as a data URL."""
    image = Image.open(DEMO).convert("RGB")
    for _ in range(4):
        place = (lots.randrange(image.width), lots.randrange(image.height))
        image.putpixel(place, (lots.randrange(256), lots.randrange(256), lots.randrange(256)))
    held = io.BytesIO()
    image.save(held, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"


def request(kind: str, lots: random.Random, server: str) -> dict[str, Any]:
    """The body of a request of this kind."""
    url = "http://169.254.169.254/" if kind == "forbidden url" else picture(lots)
    url = url[:200] if kind == "broken picture" else url
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is the word?"}]
    made = {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "stream": kind == "stream"}
    if kind == "stream":
        made["stream_options"] = {"include_usage": True}
    asked = {"vlm_pruner": KINDS_WITH_PLANS[kind]} if kind in KINDS_WITH_PLANS else {}
    if server == "vllm":
        asked = {"mm_processor_kwargs": asked} if asked else {}
        made |= {"model": "embedded", "temperature": 0}
    return made | asked


def kept(text: str, server: str, words: int) -> int:
    """Visual tokens that an answer says it was made from.

    Args:
        text: the answer, or a whole stream.
        words: tokens of the prompt that are none of the picture, for vLLM, which counts them together.
    """
    pieces = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] or [json.loads(text)]
    if server == "vllm":
        return int(next(one["usage"]["prompt_tokens"] for one in reversed(pieces) if one.get("usage"))) - words
    return int(next(one["vlm_pruner"]["kept"] for one in reversed(pieces) if "vlm_pruner" in one))


class Clients:
    """What all clients have seen."""

    def __init__(self, address: str, server: str, seconds: float) -> None:
        self.address, self.server = address, server
        self.words = 0
        if server == "vllm":
            status, text = self.send(request("pruned", random.Random(-1), server))
            assert status == 200, text
            self.words = kept(text, server, KEEP)
        self.end = time.monotonic() + seconds
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.status: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, seed: int) -> None:
        """One client until the end."""
        lots = random.Random(seed)
        while time.monotonic() < self.end:
            kind = lots.choice(KINDS)
            body = request(kind, lots, self.server)
            began = time.perf_counter()
            try:
                self._one(kind, body, lots)
            except Exception as error:
                self.wrong.append(f"{kind}: {error!r}")
            self.seconds[kind].append(time.perf_counter() - began)

    def send(self, body: dict[str, Any], leave: float | None = None) -> tuple[int, str]:
        """Status and text of an answer; (0, "") if the client leaves before, after so many seconds."""
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_SECONDS)
        try:
            head = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
            if leave is not None:
                time.sleep(leave)
                return 0, ""
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def _one(self, kind: str, body: dict[str, Any], lots: random.Random) -> None:
        status, text = self.send(body, lots.uniform(0.0, 0.5) if kind == "leaves" else None)
        if status == 0:
            return
        self.status[f"{kind} {status}"] += 1
        wanted = {"pruned": 200, "whole": 200, "stream": 200}.get(kind, 400)
        if status == 503:
            return
        if status != wanted:
            self.wrong.append(f"{kind}: {status} {text[:200]}")
        elif wanted == 200 and kept(text, self.server, self.words) != (ALL if kind == "whole" else KEEP):
            self.wrong.append(f"{kind}: {text[-300:]}")


@contextmanager
def serving(server: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of a server that is ready, and its host:port."""
    limit = ("--max-seconds", str(ANSWER_SECONDS))
    command = [sys.executable, "-m", "vlm_pruner", "serve", "embedded", "--keep", str(KEEP), *limit, "--port"]
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
        given = dict(os.environ)
        if server == "vllm":
            from benchmarks.served import for_vllm

            from vlm_pruner.asking import open_model

            template = Path(name) / "chat.jinja"
            template.write_text(
                "{% for m in messages %}{% for p in m.content %}{{ '<image>' if p.type != 'text' else p.text }}"
                "{% endfor %}{% endfor %}"
            )
            for_vllm(open_model("embedded"), Path(name))
            given["VLLM_CPU_KVCACHE_SPACE"] = "1"
            plan = json.dumps({"vlm_pruner": {"keep": KEEP}})
            command = [
                sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", name, "--served-model-name", "embedded",
                "--hf-overrides", plan, "--trust-request-mm-kwargs", "--chat-template", str(template),
                "--chat-template-content-format", "openai", "--dtype", "float32", "--enforce-eager",
                "--max-model-len", "1024", "--max-num-seqs", "16", "--mm-processor-cache-gb", "0.1",
                "--num-gpu-blocks-override", "512", "--allowed-media-domains", "example.org", "--port",
            ]  # fmt: skip
        free.close()
        log = Path(name) / "log"
        with log.open("w") as out:
            process = subprocess.Popen([*command, port], stdout=out, stderr=subprocess.STDOUT, text=True, env=given)
            try:
                end = time.monotonic() + START_SECONDS
                while not _healthy(port):
                    if process.poll() is not None or time.monotonic() > end:
                        raise SystemExit(f"the server did not start:\n{log.read_text()[-3000:]}")
                    time.sleep(1)
                yield process, f"127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait()


def _healthy(port: str) -> bool:
    connection = http.client.HTTPConnection(f"127.0.0.1:{port}", timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _memory(process: int) -> int:
    """Resident bytes of a process and its children."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        own = int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024
        children = " ".join(path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")).split()
    except (OSError, StopIteration):
        return 0  # it has ended
    return own + sum(_memory(int(child)) for child in children)


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--server", choices=["vlm-pruner", "vllm"], default="vlm-pruner")
    given = parser.parse_args()
    report = Report("soak_vllm" if given.server == "vllm" else "soak", given, prepare(given))
    minutes = 0.2 if given.quick else given.minutes
    with serving(given.server) as (server, address):
        clients = Clients(address, given.server, minutes * 60)
        began = time.monotonic()
        threads = [threading.Thread(target=clients.run, args=(seed,), daemon=True) for seed in range(given.clients)]
        for thread in threads:
            thread.start()
        sizes = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            if time.monotonic() - began > WARM * minutes * 60:
                sizes.append(_memory(server.pid))
        report.check(server.poll() is None, "the server ended")
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
