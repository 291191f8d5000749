"""Which implementation runs: chosen by device, said once, forced where asked, refused with a reason."""

import logging
import uuid

import pytest
import torch

from vlm_pruner.errors import BackendUnavailableError, PlanError
from vlm_pruner.ops import spread, use_backend
from vlm_pruner.ops.dispatch import implementation

ROWS = torch.eye(4)


def test_the_cpu_gets_torch_and_it_is_said_once(caplog):
    from vlm_pruner.ops import dispatch

    dispatch._say.cache_clear()
    with caplog.at_level(logging.INFO, "vlm_pruner.ops"):
        modules = {implementation("maxmin", ROWS).__name__ for _ in range(3)}
    assert modules == {"vlm_pruner.ops.maxmin.torch"}
    assert [record.message.split(" (")[0] for record in caplog.records] == ["maxmin on cpu runs on torch"]


def test_forced_for_a_block_and_for_a_call():
    with use_backend("naive"):
        assert implementation("maxmin", ROWS).__name__.endswith("naive")
        assert implementation("maxmin", ROWS, "torch").__name__.endswith("torch")
        with use_backend(None):
            assert implementation("maxmin", ROWS).__name__.endswith("torch")
    assert implementation("maxmin", ROWS).__name__.endswith("torch")


def test_unknown_backends():
    with pytest.raises(PlanError, match="did you mean 'triton'"):
        spread([ROWS], 2, backend="tritn")
    with pytest.raises(PlanError, match="Known: naive, torch, triton"), use_backend(uuid.uuid4().hex):
        pass


def test_triton_on_a_cpu_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendUnavailableError, match=r"maxmin cannot run on triton: .*; use one of naive, torch"):
        spread([ROWS], 2, backend="triton")
