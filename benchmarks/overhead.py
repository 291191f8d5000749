"""What the hooks cost per decoder layer and decode step, on a 32-layer model that itself costs next to nothing.

Pruning at layer 2 leaves 30 hooked layers. The baseline is the unpatched model with a cache that holds as many entries
in every layer as that of the pruned model, so that attention costs the same and the difference is the hooks. At batch 1
such a cache is cut by hand after the same prefill. A padded batch, whose mask would not fit it, reads a short text
instead; the first two layers are cheaper there than the pruned model's. What as many hooks cost that do nothing stands
beside it: torch calls a module with hooks in another way than one without. The processor's time stands beside the
clock's: it is what a busy machine does not change.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from typing import Any

import torch
from benchmarks.common import Report, arguments, prepare

from vlm_pruner.engine import prune
from vlm_pruner.engine.release import cache_in, cache_name
from vlm_pruner.profiling.shapes import model_shape
from vlm_pruner.profiling.timing import Probe, interleave, median

KEEP, LAYER, TEXT = 64, 2, 60


def decode_ms(
    model: Any, inputs: dict[str, Any], count: int, plan: dict[str, Any] | None, *, mask: bool, cut: bool = False
) -> tuple[float, float]:
    """Milliseconds of a decode step after a prefill: median by the clock, mean of the processor's time.

    With `mask`, the padding mask is passed on; with `cut`, the cache is cut to what pruning would leave.
    """
    ids = inputs["input_ids"]
    token = torch.full((ids.shape[0], 1), 5, device=ids.device)
    seen = inputs["attention_mask"]
    extra: dict[str, Any] = {}
    with nullcontext() if plan is None else prune(model, **plan):
        cache = cache_in(model(**inputs, use_cache=True, logits_to_keep=1))
        for layer in cache.layers[LAYER:] if cut else ():
            layer.keys, layer.values = (part[:, :, -TEXT - KEEP :].clone() for part in (layer.keys, layer.values))
        with Probe({"model": model}, ids.device) as probe:
            started = time.process_time()
            for _ in range(count):
                if mask:
                    seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
                    extra = {"attention_mask": seen}
                model(input_ids=token, **{cache_name(model): cache}, use_cache=True, **extra)
            worked = time.process_time() - started
    return median(probe.times()["model"]), 1000 * worked / count


def with_empty_hooks(model: Any, inputs: dict[str, Any], count: int, *, mask: bool, cut: bool) -> tuple[float, float]:
    """The same of the unpatched model with a hook that does nothing on every layer that pruning would hook."""
    layers = model.base_model.get_decoder().layers[LAYER:]
    handles = [layer.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True) for layer in layers]
    try:
        return decode_ms(model, inputs, count, None, mask=mask, cut=cut)
    finally:
        for handle in handles:
            handle.remove()


def batch(inputs: dict[str, Any], rows: int) -> dict[str, Any]:
    """The prompt `rows` times, each row with one more token of padding on its left than the one before."""
    wide = {key: value.repeat(rows, *[1] * (value.dim() - 1)) for key, value in inputs.items()}
    if rows > 1:
        for row in range(rows):
            wide["attention_mask"][row, :row] = 0
    return wide


def text_only(inputs: dict[str, Any], length: int) -> dict[str, Any]:
    """Text of `length` tokens with the padding of `inputs`."""
    mask = inputs["attention_mask"][:, :length]
    return {"input_ids": torch.full_like(inputs["input_ids"][:, :length], 7), "attention_mask": mask}


def main(options: argparse.Namespace) -> None:
    """Measure, print."""
    device = prepare(options)
    spec = model_shape("tiny" if options.quick else "thin-32")
    model, prompt = spec.build(device, torch.float32), spec.inputs(device, torch.float32, text=TEXT)
    layers = spec.text["num_hidden_layers"]
    plan = {"method": "random", "keep": KEEP, "layer": LAYER}
    count, rounds = (4, 2) if options.quick else (40, options.repeats)
    report = Report("overhead", options, device)
    for rows in (1, 4):
        inputs, masked = batch(prompt, rows), rows > 1
        short, cut = (text_only(inputs, TEXT + KEEP) if masked else inputs), not masked
        candidates = {
            "unpatched": lambda: decode_ms(model, inputs, count, None, mask=masked),  # noqa: B023
            "same cache": lambda: decode_ms(model, short, count, None, mask=masked, cut=cut),  # noqa: B023
            "empty hooks": lambda: with_empty_hooks(model, short, count, mask=masked, cut=cut),  # noqa: B023
            "pruned": lambda: decode_ms(model, inputs, count, plan, mask=masked),  # noqa: B023
        }
        found = interleave(candidates, rounds, warmup=1)
        for name, samples in found.items():
            report.row(f"batch {rows}, {name}", [clock for clock, _ in samples], cpu_ms=median([c for _, c in samples]))
        for kind in ("empty hooks", "pruned"):
            pairs = list(zip(found[kind], found["same cache"], strict=True))
            per_layer, cpu = (median([1000 * (a[i] - b[i]) / (layers - LAYER) for a, b in pairs]) for i in (0, 1))
            title = "hooks" if kind == "pruned" else kind
            report.row(f"batch {rows}, {title} alone", us_per_hooked_layer=per_layer, cpu_us_per_hooked_layer=cpu)
        if rows == 1:
            report.aim("hooks at batch 1, microseconds per hooked layer and step", per_layer, 8.0)
    report.finish()


if __name__ == "__main__":
    main(arguments(__doc__ or "", repeats=9).parse_args())
