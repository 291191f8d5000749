"""What a prefill costs the host, and how often it waits for the device.

A GPU is fed by the host: milliseconds that hooks take there, and every value that is read off the device, hold the
whole prefill up. The milliseconds are those of a model of 32 layers so thin that lengths hardly matter: with hooks,
without, and the difference. The reads are counted on the CPU, with tensors of a class that stands for a device: it
hands itself on to everything that is made of it, and notes who asks for its values. What methods read themselves is
left out:
on a CPU they may, and on a GPU the contract tests see that they do not.
"""

from __future__ import annotations

import argparse
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import torch
from benchmarks.common import Report, arguments, prepare
from benchmarks.overhead import TEXT, batch

import vlm_pruner
from vlm_pruner.engine import prune
from vlm_pruner.profiling.shapes import model_shape
from vlm_pruner.profiling.timing import Probe, interleave, median

KEEP, LAYER = 64, 2
METHODS = ("random", "vlm-pruner", "fastv")
OURS = str(Path(vlm_pruner.__file__).parent)
OF_METHODS = ("ops/", "methods/")
CHECK = "methods/base.py: refuse_what_is_not_finite"  # which the engine calls, once for images of one size
READS = {
    "item",
    "tolist",
    "nonzero",
    "cpu",
    "numpy",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "equal",
    "unique",
}


class OnDevice(torch.Tensor):
    """Stands for a tensor of a device. `reads` says who waited for its values."""

    reads: ClassVar[Counter[str]] = Counter()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        by_mask = name in ("__getitem__", "__setitem__") and any(
            isinstance(i, cls) and i.dtype == torch.bool for i in (args[1] if isinstance(args[1], tuple) else args[1:2])
        )
        if name in READS or by_mask:
            cls.reads[_who(name)] += 1
        if name == "cpu":
            return args[0].as_subclass(torch.Tensor)
        return super().__torch_function__(func, types, args, kwargs)


def _who(name: str) -> str:
    """The place in this package that reads, or the model."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(OURS):
            return f"{Path(frame.filename).relative_to(OURS)}: {frame.name} ({name})"
        if "transformers" in frame.filename:
            return "the model"
    return "the model"


def reads(model: Any, inputs: dict[str, Any], method: str) -> tuple[int, Counter[str]]:
    """Reads of one pruned prefill by the engine, and where they stand."""
    given = {name: value.as_subclass(OnDevice) for name, value in inputs.items()}
    OnDevice.reads.clear()
    with prune(model, method, keep=KEEP, layer=LAYER):
        model(**given, use_cache=True, logits_to_keep=1)
    found = Counter({
        where: count
        for where, count in OnDevice.reads.items()
        if where != "the model" and (where.startswith(CHECK) or not where.startswith(OF_METHODS))
    })  # fmt: skip
    return sum(found.values()), found


def main(options: argparse.Namespace) -> None:
    """Measure, print."""
    device = prepare(options)
    spec = model_shape("tiny" if options.quick else "thin-32")
    model = spec.build(device, torch.float32)
    prompt = spec.inputs(device, torch.float32, text=TEXT)
    report = Report("host", options, device)
    for rows in (1, 4):
        inputs = batch(prompt, rows)

        def once(plan: dict[str, Any] | None, inputs: dict[str, Any] = inputs) -> float:
            with Probe({"model": model}, device) as probe:
                if plan is None:
                    model(**inputs, use_cache=True, logits_to_keep=1)
                else:
                    with prune(model, **plan):
                        model(**inputs, use_cache=True, logits_to_keep=1)
            return median(probe.times()["model"])

        candidates = {"unpatched": lambda: once(None)}
        for keep in (1.0, KEEP):
            candidates[f"random, keep {keep}"] = lambda keep=keep: once(
                {"method": "random", "keep": keep, "layer": LAYER}
            )
        found = interleave(candidates, options.repeats, warmup=1)
        for name, samples in found.items():
            report.row(f"batch {rows}, {name}", samples)
        extra = [a - b for a, b in zip(found["random, keep 1.0"], found["unpatched"], strict=True)]
        report.row(f"batch {rows}, hooks that drop nothing", extra)
    if device.type == "cpu":
        for method in METHODS:
            count, where = reads(model, batch(prompt, 2), method)
            report.row(f"reads, {method}", reads=count, where="; ".join(f"{c} {w}" for w, c in where.items()))
            report.aim(f"reads of the device per prefill, {method}", float(count), 1.0)
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "", repeats=9).parse_args())
