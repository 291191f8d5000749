"""Measures one prompt on one model, unpruned and pruned to several budgets, in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from vlm_pruner.budget import Keep
from vlm_pruner.engine import prune
from vlm_pruner.engine.release import cache_in
from vlm_pruner.errors import PlanError, UnsupportedModelError
from vlm_pruner.flops import DecoderShape, ProjectorShape, VisionShape, projector_flops, vision_flops
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import TOWER, Bias, Layer, PrunePlan, Stage
from vlm_pruner.profiling.figures import Variant
from vlm_pruner.profiling.result import ProfileResult
from vlm_pruner.profiling.timing import Probe, describe_machine, interleave, peak_bytes
from vlm_pruner.report import provenance

__all__ = ["cache_bytes", "profile", "vision_prediction"]

_HOOKS = "hooks alone"
PROJECTORS = ("multi_modal_projector", "connector", "merger")


@dataclass(frozen=True)
class _Run:
    spans: dict[str, float]
    kv_bytes: int
    report: Any


def profile(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    method: str | PruningMethod | PrunePlan = "vlm-pruner",
    *,
    name: str | None = None,
    image: str = "",
    keep: Keep | Sequence[Keep] = 64,
    layer: Layer = None,
    bias: Bias | None = None,
    new_tokens: int = 8,
    repeats: int = 7,
    warmup: int = 2,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> ProfileResult:
    """Measure one prompt unpruned and at each budget, in interleaved runs of `model.generate`.

    Args:
        model: a vision-language model in eval mode, on the device to measure.
        inputs: what the processor returned for ONE prompt with at least one image.
        method: as for `prune`; a finished plan says its own budgets, `keep` is then left out of account.
        name: how the result calls the model; None is its class.
        image: how the result calls the picture.
        keep: one budget or several.
        layer: decoder layer to prune at; None leaves it to the method.
        bias: as for `prune`.
        new_tokens: tokens to generate, at least 2 so that a decode step is measured.
        repeats: measured rounds, after `warmup` rounds that are thrown away.
        progress: told what is being run and the share of the rounds that is done.

    Raises:
        PlanError: several prompts, no image, fewer than 2 new tokens, or an impossible plan.
        UnsupportedModelError: the model cannot be pruned.
    """
    if inputs["input_ids"].shape[0] != 1:
        raise PlanError(f"a profile measures one prompt, got a batch of {inputs['input_ids'].shape[0]}")
    if new_tokens < 2:
        raise PlanError(f"new_tokens={new_tokens} is too few: give 2 or more, since the prefill gives the first token")
    layers = DecoderShape.from_config(model.config).layers
    plans = _plans(method, keep, layer, bias, layers)
    runs: dict[str, Callable[[], _Run]] = {
        key: lambda plan=plan: _run(model, inputs, plan, new_tokens)  # type: ignore[misc]
        for key, plan in plans.items()
    }
    found = interleave(runs, repeats, warmup, progress)
    hooks = _variant(_HOOKS, plans[_HOOKS], found[_HOOKS], 0)
    del plans[_HOOKS], runs[_HOOKS]
    device = inputs["input_ids"].device
    peaks = {key: peak_bytes(run, device) for key, run in runs.items()}
    variants = tuple(_variant(key, plans[key], found[key], peaks[key]) for key in plans)
    called = name or type(model).__name__
    reports = {key: found[key][0].report for key in list(plans)[1:]}
    return _result(called, image, model, inputs, plans, variants, hooks, reports, new_tokens)


def _plans(method: Any, keep: Any, layer: Layer, bias: Bias | None, layers: int) -> dict[str, PrunePlan | None]:
    """What is measured, by name: nothing, every budget, and the hooks of the first plan alone."""
    if isinstance(method, PrunePlan):
        plans = {"plan " + method.fingerprint()[:6]: method.check(layers)}
    else:
        keeps = list(keep) if isinstance(keep, Sequence) else [keep]
        plans = {f"keep {k}": PrunePlan.of(method, k, layer, num_layers=layers, bias=bias) for k in keeps}
    first = next(iter(plans.values()))
    everything = replace(first, stages=tuple(replace(stage, keep=1.0) for stage in first.stages))
    return {"unpruned": None, **plans, _HOOKS: everything}


def _modules(model: Any) -> dict[str, nn.Module]:
    """What is timed, by the name of its span; a part that cannot be found is not measured."""
    modules = {"model": model, "decoder": model.base_model.get_decoder()}
    encoder = model.get_encoder("image")
    if encoder is not model:
        modules["encoder"] = encoder
    for owner in (model.base_model, encoder):
        projectors = [getattr(owner, name) for name in PROJECTORS if isinstance(getattr(owner, name, None), nn.Module)]
        if projectors:
            modules["projector"] = projectors[0]
            break
    return modules


def _run(model: Any, inputs: Mapping[str, torch.Tensor], plan: PrunePlan | None, new_tokens: int) -> _Run:
    modules = _modules(model)
    with torch.no_grad(), nullcontext() if plan is None else prune(model, plan) as session:
        with Probe(modules, inputs["input_ids"].device) as probe:
            out = model.generate(
                **inputs,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                use_cache=True,
                return_dict_in_generate=True,
            )
            total = probe.since_start()
        times = probe.times()
        report = None if session is None else session.report
    decode = times["model"][1:]
    spans = {
        "prefill": times["decoder"][0],
        "decode": sum(decode) / len(decode),
        "first_token": probe.until("model"),
        "total": total(),
    }
    spans |= {name: sum(times[name]) for name in ("encoder", "projector") if times.get(name)}
    if "projector" in spans and modules["projector"] in set(modules["encoder"].modules()):
        spans["encoder"] -= spans["projector"]
    if report is not None:
        spans["selection"] = report.selection_ms
    return _Run(spans, cache_bytes(cache_in(out)), report)


def cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values that a transformers cache holds."""
    held = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values) if tensor is not None]
    return sum(tensor.nbytes for tensor in held)


def _variant(name: str, plan: PrunePlan | None, runs: Sequence[_Run], peak: int) -> Variant:
    samples = {span: [run.spans[span] for run in runs] for span in runs[0].spans}
    stages = () if plan is None else tuple((stage.site, stage.keep) for stage in plan.stages)
    return Variant(name, stages, samples, runs[-1].kv_bytes, peak)


def vision_prediction(config: Any, inputs: Mapping[str, torch.Tensor]) -> int | None:
    """FLOPs of vision tower and projector for these inputs; None where no formula fits."""
    try:
        tower, projector = VisionShape.from_config(config.vision_config), ProjectorShape.from_config(config)
    except UnsupportedModelError:
        return None
    grids = inputs.get("image_grid_thw", inputs.get("video_grid_thw"))
    if grids is not None:
        grid = [(int(t), int(h), int(w)) for t, h, w in grids.tolist()]
    elif (pixels := inputs.get("pixel_values", inputs.get("pixel_values_videos"))) is not None:
        height, width = pixels.shape[-2:]
        tiles = pixels.shape[:-3].numel()  # or frames
        grid = [(1, height // tower.patch_size, width // tower.patch_size)] * tiles
    else:
        return None
    return sum(vision_flops(tower, g) + projector_flops(projector, g[0] * g[1] * g[2]) for g in grid)


def _place(stage: Stage) -> str:
    return stage.place if stage.layer == TOWER else f"at layer {stage.site}"


def _result(
    name: str,
    image: str,
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    plans: Any,
    variants: tuple[Variant, ...],
    hooks: Variant,
    reports: Mapping[str, Any],
    new_tokens: int,
) -> ProfileResult:
    images = tuple(one.total for one in next(iter(reports.values())).images)
    if not images:
        raise PlanError("the prompt holds no image: there is nothing to prune, and nothing to profile")
    plan, device = list(plans.values())[1], inputs["input_ids"].device
    parameter = next(model.base_model.get_decoder().parameters())
    return ProfileResult(
        model=name,
        method=" + ".join(f"{s.method.name} {_place(s)}" for s in plan.stages),
        machine=describe_machine(device) | {"dtype": str(parameter.dtype).removeprefix("torch.")},
        shape=DecoderShape.from_config(model.config),
        text_tokens=inputs["input_ids"].shape[1] - sum(images),
        image_tokens=images,
        new_tokens=new_tokens,
        itemsize=parameter.element_size(),
        vision_flops=vision_prediction(model.config, inputs),
        tower_saved={
            key: report.vision_flops_full - report.vision_flops_pruned
            for key, report in reports.items()
            if report.vision_flops_pruned is not None
        },
        variants=variants,
        hooks=hooks,
        image=image,
        counts={key: (report.asked, report.kept, report.layer_average) for key, report in reports.items()},
        notes=tuple(dict.fromkeys(remark for report in reports.values() for remark in report.remarks)),
        about=provenance(),
    )
