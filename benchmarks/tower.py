"""Vision tower and time to first token with a stage before the tower, on random models of published tower widths.

The time to first token is that of a whole forward: choice, tower, projector and prefill. Ratios are taken within a
round of interleaved runs, and their median is reported.

    python -m benchmarks.tower                     writes results/tower.json
    python -m benchmarks.tower --only Qwen3        measures the models of this name; rows of the others stay
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from benchmarks.common import RESULTS, Report, arguments, prepare

from vlm_pruner.engine import prune
from vlm_pruner.profiling.shapes import SHAPES
from vlm_pruner.profiling.timing import Probe, describe_machine, interleave, median

SHARES = (0.5, 0.25, 0.1)
TEXT = 60
IMAGE, START, END, VIDEO, VOCAB = 1000, 1001, 1002, 1003, 1024
WORDS = {
    "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 16,
    "num_key_value_heads": 4, "vocab_size": VOCAB, "head_dim": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
}  # fmt: skip
TOKENS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One measured forward."""

    whole: float  # ms of the model's forward
    tower: float  # ms of the tower, choice included
    kept: int
    logits: torch.Tensor


def clip(quick: bool) -> tuple[Any, dict[str, Any]]:
    """CLIP ViT-L/14-336 in full depth, in front of 8 layers of width 1024."""
    from transformers import AutoModelForImageTextToText

    wide, tiny = SHAPES["wide-8"], SHAPES["tiny"]
    if quick:
        return tiny.build(torch.device("cpu"), torch.float32), tiny.inputs(torch.device("cpu"), torch.float32)
    config = wide.config()
    config.vision_config = SHAPES["llava-1.5-7b"].config().vision_config
    model = AutoModelForImageTextToText.from_config(config).eval()
    return model, wide.inputs(torch.device("cpu"), torch.float32, text=TEXT)


def packed(kind: str, quick: bool) -> tuple[Any, dict[str, Any]]:
    """A Qwen tower of published widths and 8 blocks, in front of 8 layers of width 1024."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    vision: dict[str, Any] = {
        "qwen2_5_vl": {"hidden_size": 1280, "intermediate_size": 3420, "patch_size": 14, "window_size": 112,
                       "fullatt_block_indexes": [3, 7]},
        "qwen3_vl": {"hidden_size": 1024, "intermediate_size": 4096, "patch_size": 16,
                     "deepstack_visual_indexes": [1, 3, 5]},
    }[kind] | {"depth": 8, "num_heads": 16, "out_hidden_size": 1024}  # fmt: skip
    words = dict(WORDS)
    if quick:
        vision |= {"hidden_size": 64, "intermediate_size": 64, "num_heads": 4}
    config = AutoConfig.for_model(kind, text_config=words, vision_config=vision, **TOKENS)
    side = 16 if quick else 40
    tokens = side * side // 4
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).eval()
    text = torch.randint(3, 900, (TEXT,))
    mark = torch.tensor
    image = torch.full((tokens,), IMAGE)
    ids = torch.cat([text[: TEXT // 2], mark([START]), image, mark([END]), text[TEXT // 2 :]])[None]
    pixels = torch.randn(side * side, 3 * 2 * vision["patch_size"] ** 2)
    grid = torch.tensor([[1, side, side]])
    types = (ids == IMAGE).int()
    return model, {"input_ids": ids, "pixel_values": pixels, "image_grid_thw": grid, "mm_token_type_ids": types}


def embedded(quick: bool) -> tuple[Any, dict[str, Any]]:
    """The embedded model and its demo."""
    from vlm_pruner.asking import DEMO_IMAGE, open_image, open_model
    from vlm_pruner.scenes import DEMO_QUESTIONS

    loaded = open_model()
    return loaded.model, dict(loaded.inputs(DEMO_QUESTIONS[0][0], open_image(DEMO_IMAGE)))


MODELS: dict[str, Callable[[bool], tuple[Any, dict[str, Any]]]] = {
    "CLIP-L/336, 24 blocks": clip,
    "Qwen2.5-VL width, 8 blocks": lambda quick: packed("qwen2_5_vl", quick),
    "Qwen3-VL width, 8 blocks": lambda quick: packed("qwen3_vl", quick),
    "embedded model, demo": embedded,
}


def measure(model: Any, inputs: dict[str, Any], keep: float | None) -> Run:
    """One forward, with a share of the tokens or with all of them."""
    device = inputs["input_ids"].device
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None
    plan = nullcontext() if keep is None else prune(model, "random", keep=keep, layer="tower")
    with plan as session, Probe({"whole": model, "tower": model.get_encoder("image")}, device) as probe:
        out = model(**inputs, use_cache=True, logits_to_keep=1)
    times = probe.times()
    kept = 0 if session is None else session.report.kept
    return Run(times["whole"][0], sum(times["tower"]), kept, out.logits)


def main(options: argparse.Namespace) -> None:
    """Measure, check, print."""
    device = prepare(options)
    report = Report("tower", options, device)
    before = [] if options.quick else _measured_before(device)
    for name, build in MODELS.items():
        if not re.search(options.only, name):
            report.rows += [row for row in before if row["name"].startswith(f"{name}: ")]
            continue
        torch.manual_seed(0)
        model, inputs = build(options.quick)
        shares: dict[str, float | None] = {"unpruned": None, **{f"{share:.0%}": share for share in SHARES}}
        candidates = {key: partial(measure, model, inputs, keep) for key, keep in shares.items()}
        found = interleave(candidates, 2 if options.quick else options.repeats, warmup=1)
        report.check(
            torch.equal(measure(model, inputs, 1.0).logits, found["unpruned"][0].logits), f"{name}: keep=1.0 differs"
        )
        _rows(report, name, found)
    if not options.quick:
        _aims(report)
    report.finish()


def _measured_before(device: torch.device) -> list[dict[str, Any]]:
    """The rows of the result file, if they are of this machine."""
    path = RESULTS / "tower.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return list(found["rows"]) if found.get("machine") == describe_machine(device) else []


def _rows(report: Report, name: str, found: dict[str, list[Run]]) -> None:
    full = found["unpruned"]
    for share, runs in found.items():
        row = report.row(f"{name}: {share}", [run.whole for run in runs], kept=runs[0].kept)
        row["tower_ms"] = median([run.tower for run in runs])
        if runs is not full:
            pairs = list(zip(runs, full, strict=True))
            row["tower_times"] = median([base.tower / run.tower for run, base in pairs])
            row["first_token_times"] = median([base.whole / run.whole for run, base in pairs])


def _aims(report: Report) -> None:
    quarter = [row for row in report.rows if row["name"].endswith(": 25%") and "embedded" not in row["name"]]
    for row in quarter:
        report.aim(f"{row['name']}: 3.5 over how many times as fast the tower is", 3.5 / row["tower_times"], 1.0)
        report.aim(f"{row['name']}: 3 over the same of the first token", 3 / row["first_token_times"], 1.0)


if __name__ == "__main__":
    parser = arguments((__doc__ or "").splitlines()[0], repeats=3)
    parser.add_argument("--only", default="", help="models whose name matches this expression")
    main(parser.parse_args())
