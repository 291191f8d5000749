"""Every kept token of every method on the golden, random and scene inputs: a refactoring must leave them as they were.

    python -m benchmarks.replay                          write out/replay/COMMIT.json, of what is checked out here
    python -m benchmarks.replay compare OLD NEW          two commits, or two such files; exit code 1 if they differ
    python -m benchmarks.replay --scenes 0               without the scenes, which take the embedded model

A commit that has no record yet is checked out beside this one, recorded by the replay of this one, and removed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.common import RESULTS

__all__ = ["compare", "main", "record"]

ROOT = RESULTS.parents[1]
FOLDER = ROOT / "out" / "replay"
BUDGETS = (1, 7, 0.111, 0.5)
GRIDS = ((1, 6, 7), (1, 24, 24), (4, 6, 6))
SEEDS = 3
Records = dict[str, Any]


def _told(choice: Any) -> Any:
    """What is compared of a choice: tokens, their order, and merged rows as sums of four digits."""
    order = None if choice.order is None else choice.order.tolist()
    rows = None if choice.features is None else [float(f"{x:.4g}") for x in choice.features.double().sum(-1).tolist()]
    return {"index": choice.index.tolist(), "order": order, "rows": rows}


def _random() -> Iterator[tuple[str, Any]]:
    from tests.support.tokens import visual_tokens

    for grid in GRIDS:
        for seed in range(SEEDS):
            yield f"random {grid} {seed}", visual_tokens(grid, seed=seed)
    yield "equal", visual_tokens(flat=True)


def _golden() -> Iterator[tuple[str, Any]]:
    """Features, and keys where there are some, of the golden cases; what else methods read is random."""
    from tests.support import golden, golden_image2, golden_video
    from tests.support.tokens import visual_tokens

    from vlm_pruner.types import VisualTokens

    for source in (golden, golden_image2, golden_video):
        cases = [case for name in source.methods() for case in source.cases(name)]
        for key, case in {(c["recipe"], c["seed"], str(c.get("grid"))): c for c in cases}.items():
            name = f"{source.__name__.split('.')[-1]} {' '.join(map(str, key))}"
            made: Any = source.build(case)
            if isinstance(made, VisualTokens):
                yield name, made
                continue
            rows = made.get("features", made.get("hidden"))
            if rows is None or len(rows) != case["grid"][0] * case["grid"][1]:
                continue
            other = visual_tokens((1, *case["grid"]), rows.shape[1], seed=case["seed"])
            keys = made.get("keys", other.keys)
            yield name, replace(other, features=rows, keys=keys if keys.shape[1] == len(rows) else other.keys)


def _chosen(records: Records) -> None:
    """Choices from tokens alone."""
    from vlm_pruner.budget import keep_count
    from vlm_pruner.errors import VlmPrunerError
    from vlm_pruner.methods import create, registry

    for case, tokens in (*_random(), *_golden()):
        for name, keep in itertools.product(registry(), BUDGETS):
            try:
                found = _told(create(name).select(tokens, keep_count(len(tokens), keep)))
            except VlmPrunerError as error:
                found = type(error).__name__
            records[f"{name} {keep} {case}"] = found


def _scenes(records: Records, count: int) -> None:
    """Choices inside the embedded model, at the layer that each method prefers, and the answers."""
    from vlm_pruner import prune
    from vlm_pruner.asking import open_model
    from vlm_pruner.errors import VlmPrunerError
    from vlm_pruner.methods import registry
    from vlm_pruner.scenes import load_split

    loaded = open_model("embedded")
    for question in load_split("validation", limit=1)[:count]:
        inputs = loaded.inputs(question.text, question.images)
        for name in registry():
            try:
                with prune(loaded.model, name, keep=64) as session:
                    ids = loaded.model.generate(**inputs, max_new_tokens=4, do_sample=False)
                kept = [[choice.index.tolist() for _, _, choice in image.stages] for image in session.images]
                found: Any = {"kept": kept, "ids": ids[0, inputs["input_ids"].shape[1] :].tolist()}
            except VlmPrunerError as error:
                found = type(error).__name__
            records[f"{name} scene {question.text}"] = found


def record(scenes: int) -> Records:
    """Name of a case -> what was kept."""
    torch.set_num_threads(1)
    records: Records = {}
    with torch.no_grad():
        _chosen(records)
        if scenes:
            _scenes(records, scenes)
    return records


def compare(old: Records, new: Records) -> list[str]:
    """One line for each case that differs; cases that only one of them has are told as well."""
    return [f"{name}: {why}" for name in sorted({*old, *new}) if (why := _differs(name, old, new))]


def _differs(name: str, old: Records, new: Records) -> str:
    if name not in old or name not in new:
        return "only in the " + ("new" if name not in old else "old")
    before, after = old[name], new[name]
    if before == after:
        return ""
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(key for key in {**before, **after} if before.get(key) != after.get(key)) + " differ"
    return f"{_short(before)} became {_short(after)}"


def _short(found: Any) -> str:
    return found if isinstance(found, str) else "a choice"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def _records(name: str, scenes: int) -> Records:
    """Of a file, or of a commit, which is recorded now if it has not been."""
    path = Path(name)
    if path.suffix != ".json":
        path = FOLDER / f"{_git('rev-parse', '--short=12', name)}-{scenes}.json"
    if not path.exists():
        _record_commit(_git("rev-parse", name), path, scenes)
    found: Records = json.loads(path.read_text(encoding="utf-8"))
    return found


def _record_commit(commit: str, path: Path, scenes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(there), commit)
        try:
            (there / "benchmarks/replay.py").write_bytes(Path(__file__).read_bytes())
            words = [sys.executable, "-m", "benchmarks.replay", "--scenes", str(scenes), "--out", str(path.resolve())]
            way = os.pathsep.join([str(there / "src"), str(there)])
            subprocess.run(words, check=True, cwd=there, env={**os.environ, "PYTHONPATH": way})
        finally:
            _git("worktree", "remove", "--force", str(there))


def main(options: argparse.Namespace) -> None:
    """Record, or compare.

    Raises:
        SystemExit: two records differ.
    """
    if options.compare:
        old, new = (_records(name, options.scenes) for name in options.compare[1:])
        lines = compare(old, new)
        print(*lines[:40], f"{len(new)} cases, {len(lines)} differ", sep="\n")
        raise SystemExit(bool(lines))
    path = options.out or FOLDER / f"{_git('rev-parse', '--short=12', 'HEAD')}-{options.scenes}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = record(options.scenes)
    path.write_text(json.dumps(made), encoding="utf-8")
    print(f"{len(made)} cases in {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("compare", nargs="*", metavar="compare OLD NEW", default=[])
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--out", type=Path, default=None)
    main(parser.parse_args())
