"""The same choice everywhere: random images on each backend, under settings of MKL and torch that round otherwise.

`MKL_CBWR` gives products the order of addition of other processors, `ATEN_CPU_CAPABILITY` gives sums that of other
vector units; both are read when a process starts, so every setting has one of its own. A row says of which share of
the images the kept set is the same under all settings and on all backends. Methods that use no primitive of `ops` have
one backend. Triton's kernels are left out: their interpreter would take days.

    python -m benchmarks.rounding              the table
    python -m benchmarks.rounding --methods hawk mmr   only these rows anew
    python -m benchmarks.rounding --large      add what is measured on large images, too
    python -m benchmarks.rounding --answers    first, CDPruner's right answers on each backend and budget
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import RESULTS, Report, arguments, prepare
from benchmarks.offline import EMBEDDED, LIMIT, QUICK_LIMIT
from tests.support.golden import field

from vlm_pruner.cli.bench import about_split, load_setup
from vlm_pruner.cli.opening import Opening
from vlm_pruner.evaluation import build_grid, run_bench
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.methods import create, registry
from vlm_pruner.ops import dispatch, use_backend
from vlm_pruner.ops.dispatch import refusal
from vlm_pruner.types import VisionSignals, VisualTokens

METHOD, KEEP, BACKENDS = "cdpruner", (192, 128, 64), ("naive", "torch", "numba")
SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {"MKL_CBWR": "COMPATIBLE"},
    {"MKL_CBWR": "AVX2"},
    {"MKL_CBWR": "AVX512"},
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ATEN_CPU_CAPABILITY": "avx2"},
)
IMAGES, FEW, SIDE, WIDTH = 1000, 300, 10, 64
LARGE = {"vispruner": (24, 320)}  # side and width of images on which float32 made another choice of nearly every one
EXACT = ("vlm-pruner", "vlm-pruner-plus", "divprune", "vispruner")  # of which all sets must be the same
VIDEO = ("vidcom2", "evs", "v-cast", "holitom", "fastvid", "flashvid", "dycoke", "dtd", "prunevid")
NOT_COMPARED = {"none", "random", "grid", "pooling", "pixelprune", "erase"}  # look at no numbers, or at bytes


def image(seed: int, side: int = SIDE, width: int = WIDTH) -> tuple[VisualTokens, int]:
    """Spatially correlated tokens with every signal there is, and a budget; every third in bfloat16."""
    rng = np.random.default_rng(seed)
    n, dtype = side * side, torch.bfloat16 if seed % 3 == 2 else torch.float32

    def rows(channels: int, noise: float = 0.35) -> torch.Tensor:
        return torch.from_numpy(field(rng, side, side, channels, noise=noise)).to(dtype)

    def text(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).to(dtype)

    def attention(*shape: int) -> torch.Tensor:
        x = np.exp(2 * rng.standard_normal(shape))
        return torch.from_numpy((x / x.sum(-1, keepdims=True)).astype(np.float32)).to(dtype)

    def heads(keys: torch.Tensor) -> torch.Tensor:
        return keys.view(len(keys), 4, -1).transpose(0, 1).contiguous()

    features = rows(width)
    tokens = VisualTokens(
        features=features, keys=heads(rows(width, 0.6)), grid=(1, side, side),
        text=text(6, width), text_keys=heads(text(6, width)), words=text(6, width),
        attention=attention(4, n), text_attention=attention(4, 6, n),
        previous=features + 0.1 * rows(width), embeddings=rows(width),
        vision=VisionSignals(
            features=rows(96), cls=text(96), keys=heads(rows(64)), cls_keys=text(4, 16),
            cls_attention=attention(4, n), attention=attention(9, n),
        ),
        image_embeds=rows(48), text_embeds=text(2, 48), word_embeds=text(2, 6, 48), layer=2,
    )  # fmt: skip
    keep, angle = int(rng.integers(5, 33)), torch.arange(n).float()[:, None] / 10 ** torch.linspace(0, 3, width // 8)
    turned = torch.stack([angle.cos(), angle.sin()]).repeat(1, 1, 2).to(dtype)
    assert tokens.vision is not None
    return replace(
        tokens, raw_keys=heads(rows(width, 0.6)), text_queries=heads(text(6, width)), values=heads(rows(width)),
        text_values=heads(text(6, width)), rotary=turned,
        vision=replace(tokens.vision, cls_attentions=attention(9, n)),
    ), keep  # fmt: skip


def video(tokens: VisualTokens) -> VisualTokens:
    """The same tokens as frames, four of them: what methods for videos compare."""
    n = len(tokens)
    return replace(tokens, grid=(4, 2, n // 8) if n % 8 == 0 else (4, 1, n // 4))


def names(only: Sequence[str] = ()) -> list[str]:
    """Methods that compare numbers, or `only` these."""
    return sorted(set(only or registry()) - NOT_COMPARED)


def choices_of_large(count: int) -> Iterator[tuple[str, str, str]]:
    """The same of the methods in `LARGE`, which use no primitive."""
    for name, size in LARGE.items():
        for seed in range(count):
            kept = create(name).select(*image(seed, *size)).index
            yield f"{name}, {size[0]} x {size[0]} tokens", "torch", digest(kept)


def digest(kept: torch.Tensor) -> str:
    """A kept set in a few letters."""
    return hashlib.sha256(kept.numpy().tobytes()).hexdigest()[:12]


def choices(count: int, only: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(method, backend, a digest of the kept set) of every image in this process."""
    there = [b for b in BACKENDS if refusal("dpp", b, torch.empty(0)) is None]
    for seed in range(count):
        tokens, keep = image(seed)
        for name in names(only):
            given = video(tokens) if name in VIDEO else tokens
            for backend in there if uses_ops(name) else there[:1]:
                with use_backend(backend):
                    kept = create(name).select(given, keep).index
                yield name, backend, digest(kept)


_USES: dict[str, bool] = {}


def uses_ops(name: str) -> bool:
    """Does a method ask for a primitive that has backends?"""
    if name not in _USES:
        asked: list[str] = []
        known = dispatch.refusal
        dispatch.refusal = lambda op, *rest: asked.append(op) or known(op, *rest)  # type: ignore[assignment,func-returns-value]
        try:
            tokens, keep = image(0)
            with use_backend("torch"):
                create(name).select(tokens, keep)
        finally:
            dispatch.refusal = known
        _USES[name] = bool(asked)
    return _USES[name]


def under(setting: dict[str, str], count: int, more: Sequence[str] = ()) -> dict[str, list[tuple[str, str]]]:
    """Per method the (backend, digest) of every image, from a process under `setting`; `more` are its other options."""
    command = [sys.executable, "-m", "benchmarks.rounding", "--choices", str(count), *more]
    done = subprocess.run(command, env={**os.environ, **setting}, check=True, capture_output=True, text=True)
    found: dict[str, list[tuple[str, str]]] = {}
    for line in done.stdout.splitlines():
        name, backend, digest = json.loads(line)
        found.setdefault(name, []).append((backend, digest))
    return found


def same_everywhere(report: Report, count: int) -> None:
    """A row for each method: of which share of the images the kept set does not depend on who computes it."""
    more = ["--large"] if report.options.large else ["--methods", *report.options.methods]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda setting: under(setting, count, more), SETTINGS))
    for name in found[0]:
        runs = [setting[name] for setting in found]
        backends = sorted({backend for backend, _ in runs[0]})
        sets: list[set[str]] = [set() for _ in range(count)]
        for run in runs:
            for i, (_, digest) in enumerate(run):
                sets[i // len(backends)].add(digest)
        share = 100 * sum(len(s) == 1 for s in sets) / count
        report.check(
            name.split(",")[0] not in EXACT or share == 100, f"{name}: {share:.1f} % of the kept sets are the same"
        )
        report.row(name, same=share, images=count, settings=len(SETTINGS), backends=len(backends))


def answers(report: Report, quick: bool) -> None:
    """Right answers of one method by backend and budget."""
    limit = QUICK_LIMIT if quick else LIMIT
    setup = load_setup(EMBEDDED, Opening("cpu"), "test", limit)
    about = describe(setup, EMBEDDED)
    grid = build_grid([METHOD], KEEP, seeds=1, layers=about["layers"], tokens=about["tokens"])
    for backend in [b for b in BACKENDS if refusal("dpp", b, torch.empty(0)) is None]:
        with use_backend(backend), tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            results = run_bench(
                lambda: setup, grid, out / "results.json", name=EMBEDDED, split=about_split("test", limit),
                answers=out / "answers.jsonl", setup=setup, workers=1,
            )  # fmt: skip
        right = {row.budget: 100 * float(np.asarray(row.correct).mean()) for row in results.rows()}
        report.row(backend, **{f"right_{keep}": right[keep] for keep in KEEP})


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    if options.choices:
        count = options.choices
        for line in choices_of_large(count) if options.large else choices(count, options.methods):
            print(json.dumps(line))
        return
    report = Report("rounding", options, device)
    if options.answers:
        answers(report, options.quick)
    elif (RESULTS / "rounding.json").exists():  # as they were measured
        before: list[dict[str, Any]] = json.loads((RESULTS / "rounding.json").read_text(encoding="utf-8"))["rows"]
        again = set(names(options.methods))
        for row in before:
            large = ", " in row["name"]
            anew = large if options.large else row["name"] in again
            if "right_64" in row or not anew:
                report.rows.append(row)
    same_everywhere(report, 20 if options.quick else FEW if options.large else IMAGES)
    report.finish()


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--answers", action="store_true", help="also run CDPruner on the embedded model")
    parser.add_argument("--large", action="store_true", help="only the methods that are measured on large images, too")
    parser.add_argument("--methods", nargs="*", default=[], help="only these methods; the rows of others stay")
    parser.add_argument("--choices", type=int, default=0, help="only print the choices of so many images")
    main(parser.parse_args())
