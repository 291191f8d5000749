"""Which implementation runs: chosen by device, said once, forced where asked, refused with a reason."""

import importlib
import importlib.util
import logging
import uuid
from types import SimpleNamespace

import pytest
import torch

from vlm_pruner.errors import BackendUnavailableError, PlanError
from vlm_pruner.ops import dispatch, spread, use_backend
from vlm_pruner.ops.dispatch import implementation

ROWS = torch.eye(4)


def test_the_cpu_gets_torch_and_it_is_said_once(caplog):
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


class OnGPU:
    """As much of a CUDA tensor as the dispatch looks at."""

    is_cuda, device = True, torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("version", "capability", "why_not"),
    [
        ("3.4.0", (8, 0), None),
        ("3.10.1+git1234", (9, 0), None),
        ("3.3.1", (9, 0), "triton 3.3.1 is older than 3.4"),
        ("3.4.0", (7, 5), "compute capability 7.5 is below 8.0"),
        (None, (9, 0), "triton is not installed"),
    ],
)
def test_a_gpu_gets_triton_where_both_are_recent(version, capability, why_not, monkeypatch):
    find, load = importlib.util.find_spec, importlib.import_module
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    there = None if version is None else object()
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda n: there if n == "triton" else find(n))
    loaded = SimpleNamespace(__version__=version)
    monkeypatch.setattr(dispatch.importlib, "import_module", lambda n: loaded if n == "triton" else load(n))
    for cached in (dispatch._unfit_triton, dispatch._unfit_device):
        cached.cache_clear()
        monkeypatch.setattr(dispatch, cached.__name__, cached.__wrapped__)
    assert dispatch.refusal("maxmin", "triton", OnGPU()) == why_not
