"""The loop of every stage: a time budget, a replay pool, checkpoints to resume from, a JSON line now and then."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import Pool

Batch = dict[str, Tensor]
State = dict[str, Any]  # step, elapsed seconds, done
Loss = Callable[[Batch, float], tuple[Tensor, dict[str, float]]]  # batch, progress in [0, 1] -> loss, figures to log


@dataclass
class Stage:
    """What `run_stage` needs to know. The budget is `steps`, or `minutes` if that is not None."""

    name: str
    about: dict[str, Any]  # numbers, seed and machine, written to the log
    steps: int
    minutes: float | None
    batch: int
    rate: float
    loss: Loss
    parameters: list[nn.Parameter]
    validate: Callable[[], dict[str, float]]
    flat: float = 0.5  # share of the budget before the rate falls along a cosine
    warm_up: int = 100
    fresh: float = 1.0  # batches of 8 new images taken per step, at most
    every: float = 20.0  # seconds between log lines and checkpoints
    extra: dict[str, nn.Module] = field(default_factory=dict)  # saved beside the model

    def progress(self, step: int, elapsed: float) -> float:
        """Share of the budget that is spent."""
        return step / self.steps if self.minutes is None else elapsed / (60 * self.minutes)


def rate_at(progress: float, flat: float) -> float:
    """Factor of the learning rate: 1, then a cosine down to 0.02."""
    if progress < flat:
        return 1.0
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (progress - flat) / (1 - flat)))


def run_stage(stage: Stage, model: nn.Module, pool: Pool, out: Path, device: torch.device) -> None:
    """Train until the stage's budget is spent, counting what earlier, interrupted runs spent."""
    parameters = [p for p in stage.parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, stage.rate, (0.9, 0.98), weight_decay=0.01, fused=True)
    state: State = {"step": 0, "elapsed": 0.0, "done": False}
    path = out / f"{stage.name}.pt"
    if path.exists():
        state = _restore(path, model, stage, optimizer)
    if state["done"]:
        return
    _append(out, {"stage": stage.name, "from_step": state["step"], "run": stage.about})
    pool.start(state["step"])
    while pool.filled < min(96, pool.size):
        pool.refresh(1, wait=True)
    mean: dict[str, float] = {}
    begun, logged, logged_step = time.monotonic() - state["elapsed"], state["elapsed"], state["step"]
    while (progress := stage.progress(state["step"], elapsed := time.monotonic() - begun)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * rate_at(progress, stage.flat) * min(1.0, (state["step"] + 1) / stage.warm_up)
        pool.refresh(int((state["step"] + 1) * stage.fresh) - int(state["step"] * stage.fresh))
        rows = pool.draw(stage.batch)
        figures = _step(stage, optimizer, parameters, {k: a[rows].to(device) for k, a in pool.data.items()}, progress)
        state["step"] += 1
        for key, value in figures.items():
            if value == value:
                mean[key] = 0.97 * mean.get(key, value) + 0.03 * value
        if elapsed - logged > stage.every:
            speed = (state["step"] - logged_step) * stage.batch / (elapsed - logged)
            logged, logged_step, state["elapsed"] = elapsed, state["step"], elapsed
            _log(out, stage, state, pool, {"images_per_second": speed} | mean)
            _save(path, model, stage, optimizer, state)
    state |= {"elapsed": time.monotonic() - begun, "done": True}
    _log(out, stage, state, pool, mean)
    _save(path, model, stage, optimizer, state)


def _step(
    stage: Stage, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], batch: Batch, progress: float
) -> dict[str, float]:
    """One update; returns the figures to log."""
    with torch.autocast(batch["item"].device.type, torch.bfloat16):
        loss, figures = stage.loss(batch, progress)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return {"loss": loss.item()} | figures


def _append(out: Path, line: dict[str, Any]) -> None:
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def _log(out: Path, stage: Stage, state: State, pool: Pool, figures: dict[str, float]) -> None:
    checked = {f"val_{k}": x for k, x in stage.validate().items()}
    head = {
        "stage": stage.name,
        "step": state["step"],
        "seconds": round(state["elapsed"], 1),
        "visits": state["step"] * stage.batch,
        "distinct": pool.seen,
    }
    _append(out, head | {k: round(x, 4) for k, x in (figures | checked).items()})


def _save(path: Path, model: nn.Module, stage: Stage, optimizer: torch.optim.Optimizer, state: State) -> None:
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state": dict(state),
        "rng": torch.get_rng_state(),
    }
    content |= {f"extra_{name}": module.state_dict() for name, module in stage.extra.items()}
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def _restore(path: Path, model: nn.Module, stage: Stage, optimizer: torch.optim.Optimizer) -> State:
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    for name, module in stage.extra.items():
        module.load_state_dict(content[f"extra_{name}"])
    if not content["state"]["done"]:
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["rng"])
    state: State = content["state"]
    return state
