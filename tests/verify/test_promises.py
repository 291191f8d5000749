"""The promises hold on models of several families, and a broken engine breaks them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import pytest
import torch
from tests.support.families import FAMILIES, tiny

from vlm_pruner.engine import arguments, choose, prune, stored, tower
from vlm_pruner.engine.rows import gather_rows
from vlm_pruner.errors import PlanError
from vlm_pruner.methods import PruningMethod
from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.plan import PrunePlan, Stage
from vlm_pruner.types import Selection, Signal, VisualTokens
from vlm_pruner.verify import Verification, promises, verify
from vlm_pruner.verify.forced import answer


@final
@dataclass(frozen=True)
class Spy(PruningMethod):
    """VLM-Pruner, which keeps what it was given."""

    name: ClassVar[str] = "spy"
    title: ClassVar[str] = "Spy"
    source: ClassVar[str] = "a test"
    wants: ClassVar[frozenset[Signal]] = VLMPruner.wants

    seen: list[VisualTokens]

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        self.seen.append(tokens)
        return VLMPruner().select(tokens, keep)


def verified(name: str, attention: str = "sdpa", **options: Any) -> Verification:
    family, model = tiny(name, attention)
    one, other = (family.inputs([family.prompt(n, 1, tail=n)], model.dtype) for n in (6, 9))
    return verify(model, one, other, keep=0.4, new_tokens=4, **options)


PROVED = (
    "llava",
    "qwen2_5_vl",
    "gemma3",
    "llava_next",
    "idefics3",
    "qwen3_5",
    "lfm2_vl",
    "qwen4_exp",
    "glm5_next",
    "unlimited_ocr",
)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", PROVED)
def test_every_promise_is_kept(name: str, attention: str) -> None:
    found = verified(name, attention)
    assert found.kept
    assert [check.kept for check in found.checks] == [True] * 5
    assert found.checks[0].largest == found.checks[0].allowed == 0.0
    assert all(check.allowed < 1e-3 for check in found.checks)  # logits are some tens: rounding of float32 at most
    assert found.family == tiny(name)[1].config.model_type
    assert found.attention == attention


def test_what_it_says_as_json() -> None:
    said = verified("llava").to_dict()
    assert said["kept"] is True
    assert set(said["versions"]) == {"vlm-pruner", "transformers", "torch", "python"}
    assert {check["kept"] for check in said["checks"]} == {True}
    assert (said["method"], said["keep"], said["new_tokens"], said["layers"]) == ("vlm-pruner", 0.4, 4, 5)


def _wrong_rows(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return gather_rows(rows, index).roll(1, 1)


def _first_places(fwd: Any, tables: Any) -> Any:
    rows = len(fwd.kept.index)
    return tuple(table[:, : fwd.rows].expand(rows, -1, -1) for table in tables)


@pytest.mark.parametrize(
    ("module", "name", "broken", "promise"),
    [
        (choose, "gather_rows", _wrong_rows, 1),
        (arguments, "_cut_rotary", _first_places, 1),
        (stored, "remap_mask", lambda mask, places, kept, *rest: None, 3),
    ],
    ids=["rows", "rotary", "mask"],
)
def test_a_broken_engine_is_found(
    module: Any, name: str, broken: Any, promise: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, broken)
    found = verified("llava")
    assert not found.kept
    assert found.checks[promise].kept is False
    assert found.checks[0].kept is True  # nothing is dropped there


def test_what_is_left_on_the_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = tiny("llava")
    one, other = (family.inputs([family.prompt(n, 1, tail=n)], model.dtype) for n in (6, 9))
    stock, left = type(model).generate, []

    def leaves(self: Any, *args: Any, **kwargs: Any) -> Any:
        left.append(self.base_model.register_forward_hook(lambda *_: None))
        return stock(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "generate", leaves)
    try:
        found = verify(model, one, other, method="random", keep=0.4, new_tokens=2)
    finally:
        for handle in left:
            handle.remove()
    assert not found.kept
    assert found.checks[-1].kept is False
    assert found.checks[-1].note.startswith("changed: model")


def test_where_nothing_is_pruned_nothing_is_proved() -> None:
    """Pictures of fewer tokens than a plan prunes by itself made the reference agree with everything."""
    family, model = tiny("llava")
    found = verify(
        model, *(family.inputs([family.prompt(n, 0, tail=n)], model.dtype) for n in (6, 9)), keep=0.4, new_tokens=2
    )
    assert [check.kept for check in found.checks] == [True, None, None, True, True]
    assert found.checks[1].note == "nothing was pruned"
    found = verified("qwen2_5_vl", layer=1)
    assert all(check.kept for check in found.checks)


def test_repacked_positions_are_refused() -> None:
    family, model = tiny("llava")
    plan = PrunePlan.of("grid", 4, num_layers=5, positions="repacked")
    inputs = family.inputs([family.prompt(6, 1)], model.dtype)
    with pytest.raises(PlanError, match="cannot be checked"):
        verify(model, inputs, inputs, method=plan, keep=None)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_before_the_tower_all_is_checked_but_the_rows_that_leave_it(name: str) -> None:
    found = verified(name, method="divprune", layer="tower")
    assert [check.kept for check in found.checks] == [True, True, None, True, True]
    assert found.kept
    assert found.places == ("tower",)
    assert "the whole tower with the dropped patches hidden" in found.checks[2].promise
    assert found.checks[2].note.startswith("not checked on this model")


def test_stages_behind_the_tower_are_checked_behind_the_whole_one() -> None:
    family, model = tiny("llava")
    one, other = (family.inputs([family.prompt(n, 1, tail=n)], model.dtype) for n in (6, 9))
    plan = PrunePlan((Stage("random", 0.6, "tower"), Stage("vlm-pruner", 0.3, 2, bias="log-mass")))
    found = verify(model, one, other, method=plan, keep=None, new_tokens=3)
    assert [check.kept for check in found.checks] == [True, True, True, None, True, True]
    assert found.checks[2].promise.endswith(
        "vlm-pruner, layer 2, merging and its bias left out, behind the whole tower"
    )
    assert found.places == ("tower", 2)


def _other_tokens(stage: Any, images: Any, *rest: Any) -> Any:
    return [
        (
            image,
            replace(chosen, index=chosen.index.flip(0).sub(chosen.index.max()).neg()) if image.span.index else chosen,
        )
        for image, chosen in choose.select(stage, images, *rest)
    ]


def _dimmed(inner: Any, self: Any, original: Any) -> Any:
    run = inner(self, original)

    def forward(*args: Any, **kwargs: Any) -> Any:
        half = [0.5 * value if torch.is_floating_point(value) else value for value in args]
        return run(*half, **{key: 0.5 * value if key == "pixel_values" else value for key, value in kwargs.items()})

    return forward


@pytest.mark.parametrize(("broken", "promise"), [("select", 3), ("forward", 0)])
def test_a_broken_stage_before_the_tower_is_found(broken: str, promise: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "select":  # another choice for the second picture of a batch
        monkeypatch.setattr(tower, "select", _other_tokens)
    else:
        inner = tower.BeforeTower.forward
        monkeypatch.setattr(tower.BeforeTower, "forward", lambda *given: _dimmed(inner, *given))
    found = verified("llava", layer="tower", method="divprune")
    assert found.checks[promise].kept is False
    assert not found.kept


def test_where_nothing_is_pruned_before_the_tower_nothing_is_proved() -> None:
    family, model = tiny("llava")
    inputs = [family.inputs([family.prompt(n, 0, tail=n)], model.dtype) for n in (6, 9)]
    found = verify(model, *inputs, method="random", keep=0.4, layer="tower", new_tokens=2)
    assert [check.kept for check in found.checks] == [True, None, None, None, True]
    assert found.checks[3].note == "nothing was pruned"


@pytest.mark.filterwarnings("ignore:You are calling .generate.. with the `input_ids`:UserWarning")  # before 5.23
def test_promises_are_kept_where_accelerate_moves_the_weights() -> None:
    """`device_map="auto"` puts hooks of accelerate around every module; a CPU can only offload to itself."""
    accelerate = pytest.importorskip("accelerate")
    family = FAMILIES["llava"]
    model = family.model("sdpa", torch.float32)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    one, other = (family.inputs([family.prompt(n, 1, tail=n)], torch.float32) for n in (6, 9))
    found = verify(model, one, other, keep=0.4, new_tokens=3)
    assert [check.kept for check in found.checks] == [True] * 5


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_vlm_pruner_before_the_language_model(name: str) -> None:
    """It needs the projector's output alone: what the method makes of that is what the engine keeps."""
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(6, 1)], model.dtype)
    plan = replace(PrunePlan.of("vlm-pruner", 4, 0, num_layers=5), min_visual_tokens=1)
    seen: list[VisualTokens] = []
    with prune(model, replace(plan, stages=(replace(plan.stages[0], method=Spy(seen)),))):
        answer(model, inputs, 1)
    assert seen[0].keys is None
    assert seen[0].vision is None
    with prune(model, plan) as session:
        answer(model, inputs, 1)
    (image,) = session.images
    assert image.selection is not None
    assert image.selection.index.tolist() == VLMPruner().select(seen[0], 4).index.tolist()
    assert verified(name, method="vlm-pruner", layer=0).kept


@pytest.mark.parametrize(("method", "layer"), [("cover", 1), ("erase", None), ("pixelprune", None)])
def test_methods_that_choose_how_many_stay_are_checked(method: str, layer: int | None) -> None:
    """A picture of one colour: ERASE keeps fewer than its ceiling."""
    result = verified("llava", method=method, layer=layer)
    assert result.kept
    assert len(result.checks) == 5


def test_the_yardstick_is_measured_on_the_rows_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are left may be worse conditioned than all of them: rounding is measured there, too."""

    @contextlib.contextmanager
    def far(model: Any) -> Iterator[None]:
        handle = model.lm_head.register_forward_hook(lambda module, args, logits: logits * 1.01)
        yield
        handle.remove()

    before = verified("llava").checks
    monkeypatch.setattr(promises, "nudged", far)
    after = verified("llava").checks
    wider = [a.allowed > 100 * b.allowed for a, b in zip(after, before, strict=True)]
    assert wider == [False, True, True, False, False]
