"""The promises of the engine in every family, on tiny random models: what `vlm-pruner check` proves on real ones.

The table of docs/models.md is made of all files in results/checks: this one, and whatever
`vlm-pruner check MODEL --json > benchmarks/results/checks/NAME.json` has said on checkpoints.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from benchmarks.common import RESULTS, Report, arguments, prepare
from benchmarks.fits import tried

from vlm_pruner.report import provenance
from vlm_pruner.verify import verify

__all__ = ["checked"]

FILE = RESULTS / "checks" / "random.json"
KEEP, NEW_TOKENS = 0.4, 4


def checked(name: str) -> dict[str, Any]:
    """What `vlm-pruner check --json` says, of a family by the name that it has in `tests.support.families`."""
    from tests.support.families import FAMILIES

    family = FAMILIES[name]
    model = family.model(family.attentions[0], torch.float32)
    one, other = (family.inputs([family.prompt(n, 1, tail=n)], model.dtype) for n in (6, 9))
    found = verify(model, one, other, keep=KEEP, new_tokens=NEW_TOKENS)
    return {"date": provenance()["date"], "model": None, **found.to_dict()}


def main(options: argparse.Namespace) -> None:
    """One row a family."""
    device = prepare(options)
    if not options.quick:
        options.out = options.out or FILE
    report = Report("checks", options, device)
    for name in ["llava"] if options.quick else tried():
        found = checked(name)
        broken = [check["promise"] for check in found["checks"] if check["kept"] is False]
        report.check(not broken, f"{name}: {'; '.join(broken)}")
        report.row(name, **found)
    report.finish()


if __name__ == "__main__":
    main(arguments((__doc__ or "").splitlines()[0]).parse_args())
