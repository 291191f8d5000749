"""Does a batch job keep its promises, and how much faster is it than a loop over `ask`?

    python -m benchmarks.batch [--pictures 2000] [--kills 5] [--asks 4] [--ray PYTHON]    writes results/batch.json

One run on one machine: a job in one process; the same killed at random moments and started again; under torchrun with
two processes; on two Ray actors, where `--ray` names a Python that has Ray. All must give the same bytes, and two per
cent poisoned rows exactly these errors. Then a loop over `vlm-pruner ask`, of which only a few are run.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Report, arguments, prepare

from vlm_pruner.scenes import load_split

__all__ = ["main", "make_rows", "poison"]

EVERY = 50  # rows of which one is poisoned


def make_rows(folder: Path, pictures: int) -> Path:
    """A .jsonl of questions about so many scenes; every fiftieth has no question, or a picture that is none."""
    scenes = load_split("test")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows = []
    for number in range(pictures):
        question = scenes[number % len(scenes)]
        names = [f"{number % len(scenes)}-{i}.png" for i in range(len(question.images))]
        if number < len(scenes):
            for name, image in zip(names, question.images, strict=True):
                image.save(folder / name)
        row = {"id": f"row-{number}", "images": names, "question": question.text}
        if poison(number):
            row |= {"question": " "} if number // EVERY % 2 else {"images": ["broken.png"]}
        rows.append(row)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def poison(number: int) -> str:
    """What the error of a poisoned row says; nothing of the others."""
    if number % EVERY != EVERY - 1:
        return ""
    return "the question is empty" if number // EVERY % 2 else "is not a readable image"


def _command(folder: Path, name: str, *more: str, python: str = sys.executable) -> list[str]:
    common = ("--keep", "64", "--max-new-tokens", "8", "--threads", "1")
    return [python, "-m", "vlm_pruner", "batch", str(folder / "rows.jsonl"), "-o", str(folder / name), *common, *more]


def _run(words: list[str]) -> float:
    """Seconds of a command that must succeed."""
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _killed(words: list[str], seconds: float, kills: int) -> int:
    """Run a job that is killed so many times at random moments; how often it was running then."""
    lots, hits = random.Random(0), 0
    for _ in range(kills):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(lots.uniform(0.2, 1.0) * seconds / (kills + 1))
        process.send_signal(signal.SIGKILL)
        hits += process.wait() == -signal.SIGKILL
    _run(words)
    return hits


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--asks", type=int, default=4)
    parser.add_argument("--ray", default=None, help="a Python that has this package and Ray")
    given = parser.parse_args()
    report = Report("batch", given, prepare(given))
    pictures = 100 if given.quick else given.pictures
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_rows(folder, pictures)
        seconds = _run(_command(folder, "one.jsonl"))
        whole = (folder / "one.jsonl").read_bytes()
        errors = [json.loads(line)["error"] or "" for line in whole.decode().splitlines()]
        right = [bool(said) == bool(poison(n)) and poison(n) in said for n, said in enumerate(errors)]
        report.check(all(right) and len(right) == pictures, "errors of other rows than the poisoned ones")
        report.row("one process", seconds=seconds, per_second=pictures / seconds, errors=sum(map(bool, errors)))
        began = time.perf_counter()
        hits = _killed(_command(folder, "killed.jsonl"), seconds, given.kills)
        report.row("killed and resumed", seconds=time.perf_counter() - began, kills=hits)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        others = {"torchrun": [*torchrun, *_command(folder, "torchrun.jsonl")[1:]]}
        if given.ray is not None:
            others["ray"] = _command(folder, "ray.jsonl", "--engine", "ray", "--actors", "2", python=given.ray)
        for kind, words in others.items():
            took = _run(words)
            report.row(f"{kind}, two models", seconds=took, per_second=pictures / took)
        for kind in ("killed", *others):
            report.check((folder / f"{kind}.jsonl").read_bytes() == whole, f"{kind}: other bytes")
        ask = ["ask", str(folder / "0-0.png"), "What is the word?", "--keep", "64", "--max-new-tokens", "8"]
        one = [_run([sys.executable, "-m", "vlm_pruner", *ask]) for _ in range(given.asks)]
        report.row("ask", [1e3 * value for value in one], per_second=len(one) / sum(one))
        ratio = pictures / seconds * sum(one) / len(one)
        report.aim("a loop over ask: its pictures a second, of the job's", 1 / ratio, 1 / 8)
    report.finish()


if __name__ == "__main__":
    main()
