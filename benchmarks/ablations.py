"""VLM-Pruner with one setting changed at a time, as in Figure 4 of its paper, on the test split of the scenes.

python -m benchmarks.ablations                 writes results/ablations.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.offline import EMBEDDED, arguments, measure, prepare

from vlm_pruner.evaluation import build_grid
from vlm_pruner.evaluation.bench import describe
from vlm_pruner.methods import PruningMethod, create

__all__ = ["KEEP", "PUBLISHED", "variants"]

KEEP = 64
PUBLISHED: dict[str, Any] = json.loads((Path(__file__).parent / "published.json").read_text())["figure_4"]


def variants(hidden: int) -> dict[str, tuple[str, PruningMethod]]:
    """Label -> (the published figure it stands beside, as "curve value"; the method).

    Channels are compared at equal shares of the hidden size, of which the paper's model has 4096.
    """
    found: dict[str, tuple[str, PruningMethod]] = {}
    for curve, parse in (("pivots", int), ("threshold", float), ("token_batch", int)):
        for value in PUBLISHED[curve]:
            found[f"{curve}={value}"] = (f"{curve} {value}", create("vlm-pruner", **{curve: parse(value)}))
    for value in PUBLISHED["channels"]:
        channels = int(value) * hidden // PUBLISHED["hidden"]
        found[f"channels={channels}"] = (f"channels {value}", create("vlm-pruner", channels=channels))
    found["no BSS"] = ("without spatial_weight", create("vlm-pruner", spatial_weight=0.0))
    found["no merging"] = ("without merge", create("vlm-pruner", merge=False))
    return found


def main(options: argparse.Namespace) -> None:
    """All variants at 64 tokens, beside the unpruned model."""
    load = prepare(options)
    setup = load()
    about = describe(setup, EMBEDDED)
    hidden = setup.model.config.get_text_config().hidden_size
    methods = {label: method for label, (_, method) in variants(hidden).items()}
    grid = build_grid({"none": "none", **methods}, [KEEP], layers=about["layers"], tokens=about["tokens"])
    measure(options, setup, load, grid, options.results / "ablations.json")


if __name__ == "__main__":
    main(arguments((__doc__ or "").splitlines()[0]).parse_args())
