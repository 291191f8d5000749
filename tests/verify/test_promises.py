"""The promises hold on models of several families, and a broken engine breaks them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.families import tiny

from vlm_pruner.engine import choose, follow
from vlm_pruner.engine.rows import gather_rows
from vlm_pruner.verify import Verification, verify


def verified(name: str, attention: str = "sdpa", **options: Any) -> Verification:
    family, model = tiny(name, attention)
    one, other = (family.inputs([family.prompt(n, 1, tail=n)], model.dtype) for n in (6, 9))
    return verify(model, one, other, keep=0.4, new_tokens=4, **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "llava_next", "idefics3", "qwen3_5", "lfm2_vl"])
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
        (follow, "_cut_rotary", _first_places, 1),
        (follow, "remap_mask", lambda mask, places, kept, *rest: None, 3),
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
