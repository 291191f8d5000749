"""What methods keep to whose budget is a ceiling or a mean. A new method is tested here by being registered."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.methods.test_contract import tensors
from tests.support.registered import ADAPTIVE
from tests.support.sync import no_undeclared_reads
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection

RELATIVE = ("prunesid-reference", "autoprune-picture")  # a ceiling that the own count is a share of
OTHERS = {  # methods whose parameters make a budget of another kind of it
    "autoprune-picture": create("autoprune", steep=None, target=100.0, after=8),
    "priortr-threshold": create("priortr", threshold=0.0),
    "prunesid-reference": create("prunesid", reference=0.9),
    "prunesid-shared": create("prunesid", shared=True),
    "vlm-pruner-released": create("vlm-pruner", fill=False),
    "cover-radius": create("cover", radius=0.7),
    "pixelprune-threshold": create("pixelprune", threshold=0.7),
}
METHODS = {name: create(name) for name in ADAPTIVE} | OTHERS
CEILING = [name for name, method in METHODS.items() if method.budget == "ceiling"]
MEAN = [name for name, method in METHODS.items() if method.budget == "mean"]
N = 42

each = pytest.mark.parametrize("name", METHODS)


def sizes(method: PruningMethod, budgets: list[int]) -> list[int]:
    images = [visual_tokens(seed=seed) for seed in range(len(budgets))]
    return [len(made.validate(N)) for made in method.select_batch(images, budgets)]


def same(one: Selection, other: Selection) -> bool:
    return one.index.tolist() == other.index.tolist()


def test_there_is_one_of_either_kind() -> None:
    assert {"pixelprune", "erase", "cover"} <= set(ADAPTIVE)
    assert CEILING
    assert MEAN
    assert METHODS.keys() == {*CEILING, *MEAN}


@pytest.mark.parametrize("keep", [1, 2, 5, 21, 41, 42])
@pytest.mark.parametrize("name", CEILING)
def test_no_more_than_the_ceiling(name: str, keep: int) -> None:
    selection = METHODS[name].select(visual_tokens(), keep).validate(N)
    assert 1 <= len(selection) <= keep
    assert selection.order is None or sorted(selection.order.tolist()) == selection.index.tolist()


@pytest.mark.parametrize("name", CEILING)
def test_below_it_the_ceiling_does_not_matter(name: str) -> None:
    method, tokens = METHODS[name], visual_tokens()
    own = method.select(tokens, N)
    if name in RELATIVE:
        return
    if len(own) < N:
        assert len(method.select(tokens, len(own) + 1)) == len(own)


@pytest.mark.parametrize("name", CEILING)
def test_a_batch_is_its_images(name: str) -> None:
    images = [visual_tokens(seed=seed) for seed in range(3)] + [visual_tokens((1, 3, 5), seed=7)]
    keep = [9, 9, 4, 9]
    together = METHODS[name].select_batch(images, keep)
    assert all(same(a, METHODS[name].select(t, k)) for a, t, k in zip(together, images, keep, strict=True))


@pytest.mark.parametrize("budgets", [[9], [9, 9, 9], [1, 1, 1], [42, 42], [30, 42, 2]], ids=str)
@pytest.mark.parametrize("name", MEAN)
def test_all_images_together_keep_the_mean(name: str, budgets: list[int]) -> None:
    found = sizes(METHODS[name], budgets)
    assert sum(found) == sum(budgets)
    assert min(found) >= 1


@pytest.mark.parametrize("name", MEAN)
def test_a_plain_image_gives_its_tokens_to_a_full_one(name: str) -> None:
    full, plain = visual_tokens(seed=1), visual_tokens(seed=2)
    rows = plain.features[:1] + 0.01 * plain.features
    plain = dataclasses.replace(plain, features=rows)
    one, other = METHODS[name].select_batch([full, plain], [12, 12])
    assert len(one) > 14 > 10 > len(other)


@each
def test_deterministic_and_inputs_untouched(name: str) -> None:
    tokens = visual_tokens(dtype=torch.bfloat16)
    before = [t.clone() for t in tensors(tokens)]
    assert same(METHODS[name].select(tokens, 11), METHODS[name].select(tokens, 11))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(tokens), strict=True))


@each
@pytest.mark.parametrize("grid", [(1, 1, 1), (1, 1, 9), (2, 4, 5), (1, 24, 24)], ids=str)
def test_every_shape(name: str, grid: tuple[int, int, int]) -> None:
    tokens = visual_tokens(grid)
    for keep in {1, (len(tokens) + 1) // 2, len(tokens)}:
        METHODS[name].select(tokens, keep).validate(len(tokens))


@each
@pytest.mark.parametrize("scale", [0.0, 1.0, 6e4], ids=["zeros", "ones", "large"])
def test_all_tokens_equal(name: str, scale: float) -> None:
    tokens = dataclasses.replace(visual_tokens(flat=True, scale=scale), pixels=torch.full((N, 12, 3), 0.5))
    assert 1 <= len(METHODS[name].select(tokens, 7).validate(N)) <= 7


@each
def test_no_gradient(name: str) -> None:
    tokens = visual_tokens()
    for t in tensors(tokens):
        t.requires_grad_(t.is_floating_point())
    assert not any(t.requires_grad for t in tensors(METHODS[name].select(tokens, 8)))


@each
def test_reads_are_declared(name: str) -> None:
    images = [visual_tokens(seed=seed) for seed in range(3)]
    METHODS[name].select_batch(images, [10] * 3)
    with no_undeclared_reads():
        METHODS[name].select_batch(images, [10] * 3)


@each
def test_parameters_rebuild_the_method(name: str) -> None:
    method = METHODS[name]
    assert create(method.name, **method.params()) == method


@each
def test_what_cannot_be_chosen_is_refused(name: str) -> None:
    for keep in (0, N + 1):
        with pytest.raises(PlanError, match=f"keep={keep} does not lie between 1 and the {N} tokens"):
            METHODS[name].select(visual_tokens(), keep)
