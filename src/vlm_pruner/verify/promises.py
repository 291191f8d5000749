"""What the engine promises, checked on a given model and machine.

What may differ is measured, not assumed: the stock model is compared with itself, once with the attention that the
reference uses and nothing hidden, once in a batch and alone, and the reference with itself, its input changed in the
last place. Rounding does that much here; the pruned model may do `FACTOR` times as much.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from vlm_pruner.adapters import adapter_for
from vlm_pruner.budget import Keep
from vlm_pruner.engine import Session, prune
from vlm_pruner.errors import PlanError
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.plan import TOWER, Layer, PrunePlan, Stage
from vlm_pruner.verify.batches import both, row
from vlm_pruner.verify.choice import choices_of
from vlm_pruner.verify.forced import answer, forced
from vlm_pruner.verify.reference import masked, nudged
from vlm_pruner.verify.shortened import layers_of

__all__ = ["FACTOR", "Check", "Verification", "verify"]

FACTOR = 8.0  # how far beyond the rounding that was measured a difference may go


@dataclass(frozen=True)
class Check:
    """One promise: the largest difference of logits that was seen, and the one that rounding explains."""

    promise: str
    largest: float | None  # None where it could not be run on this model, whether pruned or not
    allowed: float
    note: str = ""

    @property
    def kept(self) -> bool | None:
        """None where it could not be run."""
        return None if self.largest is None else self.largest <= self.allowed


@dataclass(frozen=True)
class Verification:
    """All promises on one model."""

    family: str
    layers: int
    attention: str
    dtype: str
    device: str
    method: str
    keep: Keep
    places: tuple[int | str, ...]  # decoder layers before which the method prunes, or "tower"
    new_tokens: int
    checks: tuple[Check, ...]

    @property
    def kept(self) -> bool:
        """Was every promise kept that could be checked, and could one be?"""
        return all(c.kept is not False for c in self.checks) and any(c.kept for c in self.checks)

    def to_dict(self) -> dict[str, Any]:
        checks = [{**asdict(check), "kept": check.kept} for check in self.checks]
        packages = {name: version(name) for name in ("vlm-pruner", "transformers", "torch")}
        own = {**asdict(self), "checks": checks, "kept": self.kept}
        return {**own, "versions": {**packages, "python": platform.python_version()}, "machine": platform.machine()}


_UNCHECKED = Check(
    "rows that leave the tower are those of the whole tower with the dropped patches hidden", None, 0.0,
    "not checked on this model: there is no reference that hides patches inside its tower",
)  # fmt: skip


def verify(
    model: Any,
    inputs: dict[str, Any],
    other: dict[str, Any],
    *,
    method: PrunePlan | PruningMethod | str = "vlm-pruner",
    keep: Keep | None = 0.25,
    layer: Layer = None,
    new_tokens: int = 8,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Verification:
    """Check the promises on `model`, prefill and every decode step. Small pictures are pruned, too.

    Args:
        inputs: what the processor gives for one prompt with pictures, one row without padding.
        other: the same for a prompt of another length.
        method: checked at the layers where it prunes by itself, or at `layer`; a finished plan, at its own. There is
            no reference for a vision tower from which patches are hidden: what it makes of the kept ones stays
            unchecked, and is said to be.
        keep: None with a finished plan.
        progress: told which promise is being checked and the share of the work that is done.

    Raises:
        PlanError: as of `prune`, or repacked positions, which the full model does not have.
        UnsupportedModelError: as of `prune`.
    """
    text = model.base_model.get_decoder()
    progress("the untouched model", 0.0)
    answer(model, inputs, 1)  # what transformers puts on the model in its first call stays
    before = _state(model)
    plan = replace(prune(model, method, keep=keep, layer=layer).plan, min_visual_tokens=1)
    if plan.positions != "kept":
        raise PlanError(
            f"positions={plan.positions!r} cannot be checked: the full model has only its original positions"
        )
    tower = plan.stages[0].layer == TOWER
    early, first = (_random(model, plan.stages[0].keep, place) for place in (TOWER if tower else 0, 0))
    stock = answer(model, inputs, new_tokens)
    progress("keep=1.0", 0.1)
    checks = [_everything(model, inputs, stock, new_tokens, early.stages[0].layer)]
    progress("the reference", 0.2)
    rounding, note = _rounding(model, inputs, stock, new_tokens)
    behind = {"random, before the language model": first}
    if later := plan.stages[1:] if tower else plan.stages:
        behind[_named(later, tower)] = replace(plan, stages=later)
    for name, each in behind.items():
        progress(f"the reference, {name}", 0.3 + 0.15 * (len(checks) - 1))
        promise = f"logits are those of the full model with the dropped tokens hidden: {name}"
        check = Check(promise, None, FACTOR * (rounding or 0.0), note)
        checks.append(check if rounding is None else _hidden(model, inputs, choices_of(each), new_tokens, check))
    if tower:
        checks.append(_UNCHECKED)
    progress("a padded batch", 0.6)
    checks.append(_ragged(model, inputs, other, early, new_tokens))
    changed = [name for name, state in _state(model).items() if before.get(name) != state]
    left = "changed: " + ", ".join(changed[:3]) if changed else ""
    checks.append(Check("the model is left as it was", float(len(changed)), 0.0, left))
    last = plan.stages[-1]
    return Verification(
        family=str(model.config.model_type), layers=len(layers_of(model)),
        attention=str(text.config._attn_implementation), dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device), method=plan.made_by or last.method.name,
        keep=plan.nominal, places=tuple(stage.layer or 0 for stage in plan.stages),
        new_tokens=new_tokens, checks=tuple(checks),
    )  # fmt: skip


def _named(stages: Sequence[Stage], tower: bool) -> str:
    places = ", ".join(str(stage.site) for stage in stages)
    merging = "merging and its bias" if any(stage.bias for stage in stages) else "merging"
    alone = ", behind the whole tower" if tower else ""
    return f"{stages[-1].method.name}, layer {places}, {merging} left out{alone}"


def _random(model: Any, keep: Keep, layer: Layer) -> PrunePlan:
    """A choice that reads nothing, at `layer`."""
    return replace(prune(model, "random", keep=keep, layer=layer).plan, min_visual_tokens=1)


def _everything(model: Any, inputs: dict[str, Any], want: Any, new_tokens: int, layer: Layer) -> Check:
    """keep=1.0 at `layer` changes no bit of `want`."""
    with prune(model, _random(model, 1.0, layer)):
        got = answer(model, inputs, new_tokens)
    note = "" if torch.equal(got.sequences, want.sequences) else "another answer"
    return Check("keep=1.0 changes no bit", _largest(got.logits, want.logits), 0.0, note)


def _rounding(model: Any, inputs: dict[str, Any], stock: Any, new_tokens: int) -> tuple[float | None, str]:
    """How far the stock model is from itself under the attention of the reference, or why that cannot be told."""
    length, layers = inputs["input_ids"].shape[1], len(layers_of(model))
    nothing = dict.fromkeys(range(layers), torch.zeros(1, length, dtype=torch.bool))
    try:
        with masked(model, nothing):
            again = forced(model, inputs, stock.sequences, new_tokens)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return None, f"this decoder does not run with an attention of one's own ({type(error).__name__})"
    return max(_largest(again.logits, stock.logits), _last_place(stock.logits)), ""


def _hidden(model: Any, inputs: dict[str, Any], plan: PrunePlan, new_tokens: int, check: Check) -> Check:
    """The check with its largest difference, or with the reason why nothing was pruned."""
    with prune(model, plan) as session:
        got = answer(model, inputs, new_tokens)
    if why := _left_alone(session):
        return replace(check, note=why)
    with masked(model, _dropped(model, inputs["input_ids"], session)):
        want = forced(model, inputs, got.sequences, new_tokens)
        with nudged(model):  # rows that are left may be worse conditioned than all of them
            again = forced(model, inputs, got.sequences, new_tokens)
    allowed = max(check.allowed, FACTOR * _largest(again.logits, want.logits))
    return replace(check, largest=_largest(got.logits, want.logits), allowed=allowed)


def _left_alone(session: Session) -> str:
    """Why nothing was pruned; empty if something was."""
    if any(image.stages for image in session.images):
        return ""
    return "; ".join(["nothing was pruned", *(image.note for image in session.report.images if image.note)])


def _dropped(model: Any, ids: Tensor, session: Session) -> dict[int, Tensor]:
    """Layer -> [b, s] bool: places that are gone by then. Tokens of pictures are counted, not asked of the engine."""
    tokens = torch.tensor(list(adapter_for(model.config.model_type).placeholders(model.config).values()))
    layers = len(layers_of(model))
    gone = {layer: torch.zeros(ids.shape, dtype=torch.bool) for layer in range(layers)}
    visual = torch.isin(ids.cpu(), tokens)
    totals = [[image.total for image in session.images if image.row == row] for row in range(len(ids))]
    places = [torch.split(visual[row].nonzero().flatten(), parts) for row, parts in enumerate(totals)]
    for image in session.images:
        for site, _, choice in image.stages:
            away = torch.ones(image.total, dtype=torch.bool)
            away[choice.index.cpu()] = False
            for layer in range(site, layers):
                gone[layer][image.row, places[image.row][image.index]] = away
    return gone


def _ragged(model: Any, one: dict[str, Any], other: dict[str, Any], plan: PrunePlan, new_tokens: int) -> Check:
    """Rows of a padded batch against the rows alone."""
    promise = "rows of a padded batch are the rows alone"
    batch, prompts = both(model, one, other), (one, other)
    try:
        together = answer(model, batch, new_tokens)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        return Check(promise, None, 0.0, f"the stock model does not take this batch ({type(error).__name__})")
    rounding, most = max(_apart(model, prompts, together, new_tokens, forced)), _unlike(model, together.logits)
    if rounding > most:
        return Check(promise, None, 0.0, f"the stock model's own rows differ by {rounding:.2g} in this batch")
    with prune(model, plan) as session:
        together = answer(model, batch, new_tokens)
        if plan.stages[0].layer == TOWER and (why := _left_alone(session)):
            return Check(promise, None, 0.0, why)
        largest = max(_apart(model, prompts, together, new_tokens, forced))
    return Check(promise, largest, FACTOR * max(rounding, _last_place(together.logits)))


def _apart(model: Any, prompts: Any, together: Any, new_tokens: int, run: Callable[..., Any]) -> list[float]:
    """How far each row of a batch is from the prompt alone, both saying what the batch said."""
    out = []
    for index, inputs in enumerate(prompts):
        said = row(together, index, inputs["input_ids"].shape[1], new_tokens)
        alone = run(model, inputs, said, new_tokens)
        out.append(_largest(alone.logits, [logits[index : index + 1] for logits in together.logits]))
    return out


def _largest(got: Any, want: Any) -> float:
    """Of all differences; words that the model rules out have no finite logit."""
    limit = torch.finfo(torch.float32).min
    pairs = zip(got, want, strict=True)
    return max(float((a.double().clamp(min=limit) - b.double().clamp(min=limit)).abs().max()) for a, b in pairs)


def _last_place(logits: Any) -> float:
    """What one unit of the last place of the largest logit is; `generate` returns float32 in any case."""
    return max(_magnitude(each) * torch.finfo(each.dtype).eps for each in logits)


def _unlike(model: Any, logits: Any) -> float:
    """What is more than rounding in the model's dtype, and cannot be a yardstick."""
    eps = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)
    return min(1000 * eps, 0.1) * max(map(_magnitude, logits))


def _magnitude(logits: Tensor) -> float:
    """Of the largest logit; words that the model rules out are left out."""
    return float(logits.masked_fill(logits.abs() > -torch.finfo(logits.dtype).min / 2, 0.0).abs().max())


def _state(model: nn.Module) -> dict[str, Any]:
    """Of every module: its class, its attributes, its hooks, and where its tensors lie."""
    out = {}
    for name, module in model.named_modules():
        own = {key: len(value) if isinstance(value, dict) else None for key, value in vars(module).items()}
        tensors = [_place(t) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))]
        out[name] = (type(module), own, tensors)
    return out


def _place(tensor: Tensor) -> int:
    """Where a tensor's values lie; quantised ones lie nowhere by themselves, and are told by the object."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return id(tensor)
