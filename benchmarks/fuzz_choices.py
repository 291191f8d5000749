"""Random plans, and random choices by every method: each gives what it promises, or one of our errors.

    python -m benchmarks.fuzz_choices [--plans 10000] [--choices 2000]     writes results/fuzz_choices.json

Tokens are those of `awkward`: 1 to 4,000 of them, rows that are NaN, infinite, zero, doubled, huge or tiny, missing
signals, grids of one row, places that are unknown. A row of the result is a method, and says how many of its choices
were made and how many refused.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare
from benchmarks.fuzz_targets import Lots, changed, told
from tests.support.tokens import visual_tokens
from torch import Tensor

from vlm_pruner.errors import InvalidSelectionError, VlmPrunerError
from vlm_pruner.methods import create, registry
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import Positions, PrunePlan
from vlm_pruner.types import VisualTokens

__all__ = ["awkward", "chosen", "main", "planned"]

SIZES = ((1, 12), (13, 120), (121, 600), (601, 4000))
WEIGHTS = (40, 45, 14, 1)  # the large ones take seconds
DTYPES = (torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.float64)
KINDS = ("plain", "plain", "doubled", "zero", "equal", "huge", "tiny", "nan", "inf", "one hot")


def awkward(lots: random.Random, most: int = 4000) -> tuple[VisualTokens, str]:
    """Tokens of a random size and kind, and what is awkward about them."""
    low, high = lots.choices(SIZES, WEIGHTS)[0]
    n = min(lots.randint(low, high), most)
    frames = lots.choice([1, 1, 1, 2, 4])
    width = lots.choice([1, 2, 3, 7, 24])
    rows = max(1, n // (frames * width))
    grid = (frames, rows, width) if lots.random() < 0.9 else (1, 1, frames * rows * width)
    kind, dtype = lots.choice(KINDS), lots.choice(DTYPES)
    scale = {"huge": 6e4 if dtype == torch.float16 else 1e30, "tiny": 1e-4 if dtype == torch.float16 else 1e-30}
    made = visual_tokens(grid, lots.choice([8, 16, 48]), dtype, lots.randrange(2**31), scale.get(kind, 1.0),
                         kind == "equal", lots.choice([None, 1, 2]))  # fmt: skip
    count = len(made)
    if kind in ("doubled", "zero", "one hot", "nan", "inf"):
        made = replace(made, features=_spoiled(made.features, kind, lots))
    if kind in ("nan", "inf") and made.keys is not None and lots.random() < 0.5:
        made = replace(made, keys=_spoiled(made.keys.transpose(0, 1), kind, lots).transpose(0, 1))
    if lots.random() < 0.1:
        made = replace(made, **{lots.choice(["keys", "text", "attention", "vision", "pixels", "image_embeds"]): None})
    if lots.random() < 0.1:
        place = made.coordinates()
        place[:: lots.randint(1, count)] = -1
        made = replace(made, position=place, grid=None)
    return made, kind


def _spoiled(rows: Tensor, kind: str, lots: random.Random) -> Tensor:
    """Some rows of [n, ...] in another way."""
    rows = rows.clone()
    places = torch.tensor([lots.randrange(len(rows)) for _ in range(lots.randint(1, max(1, len(rows) // 2)))])
    if kind == "doubled":
        rows[places] = rows[lots.randrange(len(rows))].clone()
    elif kind == "one hot":
        rows.zero_()
        rows.view(len(rows), -1)[:, 0] = 1
    else:
        rows[places] = {"zero": 0.0, "nan": float("nan"), "inf": lots.choice([1, -1]) * float("inf")}[kind]
    return rows


def finite(thing: Any) -> bool:
    """Are all tensors of a dataclass, nested ones included?"""
    values = [getattr(thing, field.name) for field in fields(thing)]
    return all(finite(v) if is_dataclass(v) else not isinstance(v, Tensor) or bool(v.isfinite().all()) for v in values)


def chosen(method: PruningMethod, lots: random.Random, most: int = 4000) -> str:
    """ "made" or the name of the error of one random choice.

    Raises:
        AssertionError: the choice is not what it promises, or what is finite was refused as if it were not.
        Exception: whatever the method raises beside our errors, and a choice that breaks the contract.
    """
    tokens, kind = awkward(lots, most)
    keep = lots.choice([1, len(tokens), lots.randint(1, len(tokens)), lots.randint(0, len(tokens) + 1)])
    keep = len(tokens) if method.name == "none" else keep  # which keeps all, whatever it is asked for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that take minutes
            made = method.select(tokens, keep)
    except InvalidSelectionError:
        raise
    except VlmPrunerError as error:
        told(error)
        return type(error).__name__
    made.validate(len(tokens), keep if method.budget == "fixed" else len(made.index))
    assert 1 <= len(made.index) <= keep, (len(made.index), keep)
    if made.features is not None and finite(tokens):
        assert made.features.isfinite().all(), f"merged rows of {kind} tokens are not finite"
    return "made"


def planned(lots: random.Random) -> str:
    """ "read" or "PlanError" of one random plan; what is read survives a round trip, and has sound lengths.

    Raises:
        AssertionError: it does not.
        Exception: whatever is raised beside our errors.
    """
    name = lots.choice(sorted(registry()))
    try:
        older = [lots.choice([1, 8, 0.5])] * lots.randint(0, 2)
        keep, layers = lots.choice([1, 7, 64, 0.01, 0.5, 1.0]), lots.choice([4, 8, 32])
        place: Positions = lots.choice(["kept", "kept", "repacked"])
        data: Any = PrunePlan.of(name, keep, num_layers=layers, older=older, positions=place).to_dict()
        if lots.random() < 0.7:
            data = changed(data, Lots(lots.randbytes(lots.randint(0, 24))))
        found = PrunePlan.from_json(json.dumps(data))
        assert PrunePlan.from_json(found.to_json()) == found
        assert PrunePlan.from_json(found.to_json()).fingerprint() == found.fingerprint()
        total, layers = lots.randint(1, 4000), lots.randint(1, 40)
        lengths = found.check(layers).lengths(total, layers)
        assert len(lengths) == layers
        assert all(1 <= after <= before for before, after in zip([total, *lengths], lengths, strict=False)), lengths
        assert 1 <= found.asked_of(total) <= total
    except VlmPrunerError as error:
        told(error)
        return type(error).__name__
    return "read"


def main(options: argparse.Namespace) -> None:
    """One row for the plans, and one for each method."""
    report = Report("fuzz_choices", options, prepare(options))
    plans, choices = (50, 5) if options.quick else (options.plans, options.choices)
    lots = random.Random(options.seed)
    counts = Counter(planned(lots) for _ in range(plans))
    report.row("plans", tried=plans, made=counts.pop("read"), refused=sum(counts.values()), unexpected=0)
    for name in options.methods.split(",") if options.methods else sorted(registry()):
        lots, began = random.Random(f"{options.seed} {name}"), time.process_time()
        counts = Counter(chosen(create(name), lots, options.most) for _ in range(choices))
        made = counts.pop("made", 0)
        report.row(name, tried=choices, made=made, refused=sum(counts.values()), unexpected=0,
                   cpu_seconds=round(time.process_time() - began, 1))  # fmt: skip
        print(report.rows[-1], flush=True)
    report.finish()


if __name__ == "__main__":
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--plans", type=int, default=10_000)
    parser.add_argument("--choices", type=int, default=2_000, help="of each method")
    parser.add_argument("--most", type=int, default=4_000, help="tokens of an image")
    parser.add_argument("--methods", default="", help="some of them, by commas")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
