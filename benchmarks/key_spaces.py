"""In which space should VLM-Pruner look for its pivots where there are no keys of the layer before?

    python -m benchmarks.key_spaces                writes results/key_spaces.json and results/key_spaces_test.json

Candidates are compared on the validation split; the one that the method then uses, on the test split as well, beside
the form of the paper. Killed, it goes on where it was.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from benchmarks.offline import EMBEDDED, arguments, measure, prepare
from torch import Tensor

from vlm_pruner.evaluation import BenchResults, Grid
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.evaluation.cells import Cell
from vlm_pruner.methods import PruningMethod, create
from vlm_pruner.ops.basic import normalise
from vlm_pruner.plan import PrunePlan
from vlm_pruner.types import Selection, Signal, VisualTokens

__all__ = ["CANDIDATES", "CHOSEN", "PAPER", "grid", "use"]

PAPER, CHOSEN = "keys before layer 2", "centred features of unit length"
ANSWERS = Path("out") / "key_spaces.answers.jsonl"
OWN = create("vlm-pruner")

_decoder: list[Any] = []


def use(model: Any) -> None:
    """Take the first layer's projection from this model."""
    _decoder[:] = [model.base_model.get_decoder()]


def first_keys(features: Tensor) -> Tensor:
    """[kv_heads, n, head_dim] keys that the first decoder layer makes of the visual rows [n, d] alone."""
    (decoder,) = _decoder
    layer = decoder.layers[0]
    width = layer.self_attn.head_dim
    rows = layer.self_attn.k_proj(layer.input_layernorm(features[None]))
    keys = rows.view(1, len(features), -1, width).transpose(1, 2)  # [1, kv_heads, n, head_dim]
    cos, sin = decoder.rotary_emb(keys, torch.arange(len(features), device=features.device)[None])
    half = width // 2
    turned = torch.cat([-keys[..., half:], keys[..., :half]], -1)
    return (keys * cos[:, None] + turned * sin[:, None])[0]


@final
@dataclass(frozen=True)
class TowerKeys(PruningMethod):
    """VLM-Pruner with pivots in the key space of the vision tower."""

    name: ClassVar[str] = "vlm-pruner-tower-keys"
    title: ClassVar[str] = "VLM-Pruner, keys of the tower"
    source: ClassVar[str] = "benchmarks.key_spaces"
    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.VISION_KEYS})

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        assert tokens.vision is not None
        return OWN.select(replace(tokens, keys=tokens.vision.keys), keep)


@final
@dataclass(frozen=True)
class FirstKeys(PruningMethod):
    """VLM-Pruner with pivots in the key space of the first decoder layer."""

    name: ClassVar[str] = "vlm-pruner-first-keys"
    title: ClassVar[str] = "VLM-Pruner, keys of the first layer"
    source: ClassVar[str] = "benchmarks.key_spaces"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        return OWN.select(replace(tokens, keys=first_keys(tokens.features)), keep)


@final
@dataclass(frozen=True)
class FeaturePivots(PruningMethod):
    """VLM-Pruner with pivots among the features, as they are, without their mean, of unit length, or both."""

    name: ClassVar[str] = "vlm-pruner-features"
    title: ClassVar[str] = "VLM-Pruner, features"
    source: ClassVar[str] = "benchmarks.key_spaces"

    centred: bool = False
    unit: bool = False

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        rows = tokens.features.double()
        rows = (rows - rows.mean(0) if self.centred else rows).float()
        rows = normalise(rows) if self.unit else rows
        return OWN.select(replace(tokens, keys=rows[None]), keep)


CANDIDATES: dict[str, tuple[PruningMethod, int]] = {  # label -> method and layer
    PAPER: (OWN, 2),
    "keys of the vision tower": (TowerKeys(), 0),
    "keys of the first layer": (FirstKeys(), 0),
    "features": (FeaturePivots(), 0),
    "features of unit length": (FeaturePivots(unit=True), 0),
    CHOSEN: (OWN, 0),  # as FeaturePivots(centred=True, unit=True)
}


def grid(labels: list[str], budgets: list[int], layers: int, tokens: int) -> Grid:
    """Every candidate at every budget, beside the unpruned model."""
    cells = [Cell("none", tokens, PrunePlan.of("none", num_layers=layers))]
    for label in labels:
        method, layer = CANDIDATES[label]
        cells += [Cell(label, keep, PrunePlan.of(method, keep, layer, num_layers=layers)) for keep in budgets]
    return Grid(tuple(cells))


def main(options: argparse.Namespace) -> None:
    """All candidates on validation scenes, then the chosen one on the test split."""
    options.jobs = 1  # candidates read the model of this process
    for split, labels, name in (
        ("validation", options.only or list(CANDIDATES), "key_spaces"),
        ("test", [PAPER, CHOSEN], "key_spaces_test"),
    ):
        if split not in options.splits:
            continue
        options.split = split
        out = options.results / f"{name}.json"
        before = BenchResults.load(out) if options.only and split == "validation" else None
        load = prepare(options)
        setup = load()
        use(setup.model)
        about = describe(setup, EMBEDDED)
        cells = grid(labels, options.keep, about["layers"], about["tokens"])
        found = measure(options, setup, load, cells, out)
        if before is not None:
            _joined(before, found, options.only).save(out)


def _joined(before: BenchResults, found: BenchResults, labels: list[str]) -> BenchResults:
    """Earlier results with the cells of these candidates anew.

    Raises:
        SystemExit: they were of other weights or questions.
    """
    if (before.model, before.split) != (found.model, found.split):
        raise SystemExit("--only: the results that are there are of other weights or questions")
    kept = [cell for cell in before.cells if cell.label not in labels]
    return replace(before, cells=[*kept, *(cell for cell in found.cells if cell.label in labels)])


if __name__ == "__main__":
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.set_defaults(answers=ANSWERS, keep=[128, 64, 32], limit=24)
    parser.add_argument("--splits", nargs="+", choices=["validation", "test"], default=["validation", "test"])
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), help="measure these alone; others stay")
    main(parser.parse_args())
