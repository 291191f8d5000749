"""What every registered method keeps to. A new method is tested here by being registered."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from tests.support.defaults import default
from tests.support.device import kernels_written_down, moved, nothing_handed_over
from tests.support.ops import FAST, running, triton
from tests.support.registered import FIXED
from tests.support.sync import no_undeclared_reads
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import InputError, MissingSignalError, PlanError
from vlm_pruner.methods import create, registry
from vlm_pruner.types import Selection, VisualTokens

N = 42

pytestmark = pytest.mark.parametrize("name", FIXED)


def select(name: str, tokens: VisualTokens, keep: int) -> Selection:
    selection = create(name).select(tokens, keep)
    return selection.validate(len(tokens), keep)


def tensors(thing: Any) -> list[torch.Tensor]:
    """All tensors of a dataclass, nested ones included."""
    values = [getattr(thing, f.name) for f in dataclasses.fields(thing)]
    nested = [t for v in values if dataclasses.is_dataclass(v) for t in tensors(v)]
    return [v for v in values if isinstance(v, torch.Tensor)] + nested


@pytest.mark.parametrize("keep", [1, 2, 3, 5, 16, 21, 40, 41, 42])
def test_exact_count_unique_ascending_in_range(name, keep):
    selection = select(name, visual_tokens(), keep)
    if selection.order is not None:
        assert sorted(selection.order.tolist()) == selection.index.tolist()
    if selection.features is not None:
        assert selection.features.shape == (keep, 48)
        assert selection.features.isfinite().all()
    if selection.source is not None:
        assert ((selection.source >= -1) & (selection.source < keep)).all()
        assert selection.source[selection.index].tolist() == list(range(keep))


@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 1, 9), (2, 4, 5), (1, 24, 24)], ids=str)
def test_every_shape(name, grid):
    n = grid[0] * grid[1] * grid[2]
    for keep in {1, (n + 1) // 2, n}:
        select(name, visual_tokens(grid), keep)


def test_tokens_without_a_place(name):
    tokens = visual_tokens()
    place = tokens.coordinates()
    place[6::7] = -1
    select(name, dataclasses.replace(tokens, position=place, grid=None), 12)
    select(name, dataclasses.replace(tokens, position=torch.full_like(place, -1), grid=None), 12)
    select(name, dataclasses.replace(tokens, grid=None), 12)


def test_deterministic_and_inputs_untouched(name):
    tokens = visual_tokens(dtype=torch.bfloat16)
    before = [t.clone() for t in tensors(tokens)]
    first, second = select(name, tokens, 11), select(name, tokens, 11)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(tokens), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtype_and_device_stay(name, dtype):
    tokens = visual_tokens(dtype=dtype)
    selection = select(name, tokens, 9)
    assert all(t.device == tokens.device for t in tensors(selection))
    assert selection.features is None or selection.features.dtype == dtype


@pytest.mark.parametrize("scale", [0.0, 1.0, 6e4], ids=["zeros", "ones", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_all_tokens_equal(name, dtype, scale):
    select(name, visual_tokens(flat=True, scale=scale, dtype=dtype), 7)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float16, 6e4), (torch.bfloat16, 1e30), (torch.float32, 1e30), (torch.float32, 1e-30)],
    ids=["fp16-6e4", "bf16-1e30", "fp32-1e30", "fp32-1e-30"],
)
def test_extreme_values(name, dtype, scale):
    selection = select(name, visual_tokens(dtype=dtype, scale=scale), 13)
    assert selection.features is None or selection.features.isfinite().all()


def test_no_gradient(name):
    tokens = visual_tokens()
    for t in tensors(tokens):
        t.requires_grad_(t.is_floating_point())
    selection = select(name, tokens, 8)
    assert not any(t.requires_grad for t in tensors(selection))
    assert torch.is_grad_enabled()


def same_inside(name: str, setting: AbstractContextManager[Any]) -> None:
    tokens = visual_tokens(d=512)
    plain = select(name, tokens, 10)
    forget_tables()
    with setting:
        found = [select(name, tokens, 10), *create(name).select_batch([tokens] * 2, [10] * 2)]
    forget_tables()
    for selection in found:
        for one, other in zip(tensors(selection), tensors(plain), strict=True):
            torch.testing.assert_close(one, other)


def forget_tables() -> None:
    """Empty every cache of the ops and the methods, the registry's aside."""
    for module in [m for n, m in sys.modules.items() if n.startswith(("vlm_pruner.ops", "vlm_pruner.methods."))]:
        for thing in vars(module).values():
            if hasattr(thing, "cache_clear") and thing is not registry:
                thing.cache_clear()


def test_autocast_changes_nothing(name):
    same_inside(name, torch.autocast("cpu", torch.bfloat16))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [pytest.param(torch.float64, marks=pytest.mark.slow), torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(name, dtype, backend):
    with running(backend):
        same_inside(name, default(dtype))


def test_the_default_device_changes_nothing(name):
    same_inside(name, default("meta"))


def test_no_undeclared_read(name):
    tokens, method = visual_tokens(), create(name)
    method.select(tokens, 10)  # tables that depend on shapes alone may be built once
    with no_undeclared_reads():
        selection = method.select(tokens, 10)
    selection.validate(N, 10)


def test_no_undeclared_read_by_a_batch(name):
    images, method = [visual_tokens(seed=s) for s in range(3)], create(name)
    method.select_batch(images, [10] * 3)
    with no_undeclared_reads():
        together = method.select_batch(images, [10] * 3)
    for selection in together:
        selection.validate(N, 10)


@pytest.mark.parametrize("backend", ["torch", triton])
def test_a_device_is_neither_read_nor_waited_for(name, backend):
    """Not even at a declared point: a batch can be captured in a CUDA graph once it has been selected from."""
    images, method = [moved(visual_tokens(seed=s)) for s in range(3)], create(name)
    with kernels_written_down(backend) as launches:
        method.select_batch(images, [10] * 3)  # what depends on shapes alone is handed over once
        first = launches.copy()
        launches.clear()
        with nothing_handed_over():
            together = method.select_batch(images, [10] * 3)
    assert launches == first
    for launch in launches:
        launch.check()
    for selection in together:
        assert selection.index.shape == (10,)
        assert all(t.device.type == "meta" for t in tensors(selection))


def test_a_batch_is_its_images(name):
    images = [visual_tokens(seed=s) for s in range(3)] + [visual_tokens((1, 3, 5), seed=7)]
    keep = [9, 9, 4, 9]  # the last one shares its budget and not its shape
    together = create(name).select_batch(images, keep)
    for tokens, k, selection in zip(images, keep, together, strict=True):
        alone = select(name, tokens, k)
        assert selection.index.tolist() == alone.index.tolist()
        assert (selection.features is None) == (alone.features is None)
        if alone.features is not None:
            torch.testing.assert_close(selection.features, alone.features)


def test_a_missing_signal_is_named(name):
    method = create(name)
    bare = VisualTokens(visual_tokens().features, grid=(1, 6, 7))
    if not method.needs:
        pytest.skip("reads the features alone, or has substitutes for all it wants")
    with pytest.raises(MissingSignalError, match=name):
        method.select(bare, 5)


def test_what_cannot_be_chosen_is_refused(name):
    method, tokens = create(name), visual_tokens()
    for keep in (0, len(tokens) + 1):
        with pytest.raises(PlanError, match=f"{name}: keep={keep} does not lie between 1 and the {len(tokens)} tokens"):
            method.select(tokens, keep)
        with pytest.raises(PlanError, match=f"keep={keep}"):
            method.select_batch([tokens, tokens], [5, keep])
    with pytest.raises(InputError, match=r"\[tokens, width\], got \(1, 42, "):
        method.select(dataclasses.replace(tokens, features=tokens.features[None]), 1)


def test_parameters_rebuild_the_method(name):
    method = create(name)
    assert create(name, **method.params()) == method
    assert method.title
    assert method.source


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("what", ["features", "signals"])
def test_what_is_not_finite_is_refused_with_the_number_of_the_picture(name, what, wrong):
    method, images = create(name), [visual_tokens(seed=seed) for seed in range(3)]
    read = [s.value for s in sorted(method.needs | method.wants)] if what == "signals" else ["features"]
    if not read:
        pytest.skip("reads the features alone")
    for path in read:
        room, _, field = path.rpartition(".")
        given = getattr(images[1], room) if room else images[1]
        value = getattr(given, field).clone()
        value.view(-1)[value.numel() // 3] = wrong
        given = dataclasses.replace(given, **{field: value})
        bad = dataclasses.replace(images[1], **{room: given}) if room else given
        with pytest.raises(InputError, match=f"{name}: picture 2 of 3 has {path} that are NaN or infinite"):
            method.select_batch([images[0], bad, images[2]], [9, 9, 9])
        with pytest.raises(InputError, match=f"{name}: picture 1 of 1 has {path}"):
            method.select(bad, 9)
