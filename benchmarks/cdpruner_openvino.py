"""OpenVINO GenAI's CDPruner and this library on one checkpoint of Qwen2-VL's shape, at the same kept counts.

    python -m benchmarks.cdpruner_openvino --openvino PYTHON [--repeats 7]      writes results/cdpruner_openvino.json

PYTHON has openvino-genai, optimum-intel[openvino] and a transformers that it exports with. A picture of 768 visual
tokens, new each time, 0, 50, 75 and 90 per cent removed, in turns, one thread, float32. Compared are times to the first
token relative to the same engine's own without pruning: kernels differ, and so do unpruned times.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.cdpruner_worker import QUESTION, picture
from benchmarks.common import Report, arguments, prepare
from PIL import Image

from vlm_pruner.asking import Loaded, open_model
from vlm_pruner.engine import prune
from vlm_pruner.plan import PrunePlan
from vlm_pruner.profiling.timing import median

__all__ = ["main"]

REMOVED = (0, 50, 75, 90)
VISUAL = 768
OURS = {"vlm-pruner": None, "vlm-pruner before the language model": 0, "cdpruner": 0}


class Rival:
    """The worker in the other environment."""

    def __init__(self, python: str, folder: Path) -> None:
        script = Path(__file__).with_name("cdpruner_worker.py")
        words = [python, "-P", str(script), str(folder)]  # -P: it is not to find what lies beside it
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit("the worker ended: see above")

    def ask(self, removed: int, seed: int) -> dict[str, Any]:
        """What it says of one picture."""
        assert self._process.stdin is not None
        print(json.dumps({"removed": removed, "seed": seed}), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def own(loaded: Loaded, method: str, layer: int | None, keep: int, seed: int) -> dict[str, Any]:
    """Milliseconds to the first token, the picture's preparation included, and what was kept."""
    plan = PrunePlan.of(method if keep < VISUAL else "none", keep, layer if keep < VISUAL else None,
                        num_layers=loaded.layers)  # fmt: skip
    image = Image.fromarray(picture(seed))
    began = time.perf_counter()
    inputs = loaded.inputs(QUESTION, image)
    with torch.inference_mode(), prune(loaded.model, plan) as session:
        loaded.model.generate(**inputs, do_sample=False, max_new_tokens=1, min_new_tokens=1)
    return {"first_ms": (time.perf_counter() - began) * 1e3, "kept": session.report.kept}


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__, repeats=7)
    parser.add_argument("--openvino", required=True, help="a Python with openvino-genai and optimum-intel")
    parser.add_argument("--folder", type=Path, help="where the checkpoint and its export lie, or are put")
    given = parser.parse_args()
    report = Report("cdpruner_openvino", given, prepare(given))
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        rival = Rival(given.openvino, folder)
        loaded = open_model(str(folder / "model"), dtype="float32")
        times: dict[tuple[str, int], list[float]] = {}
        kept: dict[int, int] = {}
        seed, words = 0, 0
        for turn in range((2 if given.quick else given.repeats) + 1):  # the first turn warms up
            for removed in REMOVED:
                seed += 1
                said = rival.ask(removed, seed)
                words = said["tokens"] - VISUAL if removed == 0 else words
                keep = kept[removed] = said["tokens"] - words
                found = {"OpenVINO GenAI, CDPruner": said["first_ms"]}
                for method, layer in OURS.items():
                    one = own(loaded, method.split()[0], layer, keep, seed)
                    report.check(one["kept"] == keep, f"{method} keeps {one['kept']} of {keep}")
                    found[method] = one["first_ms"]
                for engine, value in found.items():
                    if turn:
                        times.setdefault((engine, removed), []).append(value)
        rival.close()
    for (engine, removed), values in times.items():
        whole = times[engine, 0]
        ratio = median([value / all_of_it for value, all_of_it in zip(values, whole, strict=True)])
        report.row(engine, values, removed=removed, kept=kept[removed], of_its_unpruned=ratio)
    report.row("versions", **rival.about)
    for removed in REMOVED[1:]:
        ratios = {r["name"]: r["of_its_unpruned"] for r in report.rows if r.get("removed") == removed}
        theirs, ours = ratios["OpenVINO GenAI, CDPruner"], ratios["vlm-pruner"]
        report.aim(f"our share of the unpruned time over theirs, {removed} % removed", ours / theirs, 1.0)
    report.finish()


if __name__ == "__main__":
    main()
