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


@pytest.fixture
def afresh(monkeypatch):
    """What was found out about this machine is forgotten, before and after."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for cached in (dispatch._unfit_triton, dispatch._unfit_numba, dispatch._unfit_device, dispatch._say):
        cached.cache_clear()
        monkeypatch.setattr(dispatch, cached.__name__, cached.__wrapped__ if cached is not dispatch._say else cached)


def pretend(monkeypatch, name: str, module: object | None) -> None:
    """Let `name` be installed as `module`; not at all where it is None, and broken where it is an error."""
    find, load = importlib.util.find_spec, importlib.import_module

    def imported(asked):
        if asked != name:
            return load(asked)
        if isinstance(module, Exception):
            raise module
        return module

    there = None if module is None else object()
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda n: there if n == name else find(n))
    monkeypatch.setattr(dispatch.importlib, "import_module", imported)


def test_what_is_picked_is_said_once(caplog, afresh, monkeypatch):
    monkeypatch.setattr(dispatch, "_unfit_numba", lambda: "numba is not installed")
    with caplog.at_level(logging.INFO, "vlm_pruner.ops"):
        modules = {implementation("maxmin", ROWS).__name__ for _ in range(3)}
    assert modules == {"vlm_pruner.ops.maxmin.torch"}
    assert [record.message for record in caplog.records] == [
        "maxmin on cpu runs on torch (not numba: numba is not installed)"
    ]


@pytest.mark.parametrize(
    ("module", "why_not"),
    [
        (SimpleNamespace(config=SimpleNamespace(DISABLE_JIT=0)), None),
        (SimpleNamespace(config=SimpleNamespace(DISABLE_JIT=1)), "NUMBA_DISABLE_JIT is set"),
        (ImportError("Numba needs NumPy 2.5 or less"), "numba cannot be imported: Numba needs NumPy 2.5 or less"),
        (None, "numba is not installed"),
    ],
    ids=["works", "not to compile", "broken", "missing"],
)
def test_the_cpu_gets_numba_where_it_works(module, why_not, monkeypatch, afresh, caplog):
    pretend(monkeypatch, "numba", module)
    assert dispatch.refusal("growth", "numba", ROWS) == why_not
    monkeypatch.setattr(dispatch.importlib, "import_module", lambda name: name)
    with caplog.at_level(logging.INFO, "vlm_pruner.ops"):
        monkeypatch.setattr(dispatch, "_unfit_numba", lambda: why_not)
        picked = implementation("growth", ROWS)
    assert picked == f"vlm_pruner.ops.growth.{'torch' if why_not else 'numba'}"
    assert (why_not or "runs on numba") in caplog.text


def test_numba_elsewhere_is_refused_with_the_reason():
    with pytest.raises(BackendUnavailableError, match="the tensor is on meta, numba needs the CPU"):
        implementation("growth", ROWS.to("meta"), "numba")


def test_forced_for_a_block_and_for_a_call(monkeypatch):
    monkeypatch.setattr(dispatch, "_unfit_numba", lambda: "numba is not installed")
    with use_backend("naive"):
        assert implementation("maxmin", ROWS).__name__.endswith("naive")
        assert implementation("maxmin", ROWS, "torch").__name__.endswith("torch")
        with use_backend(None):
            assert implementation("maxmin", ROWS).__name__.endswith("torch")
    assert implementation("maxmin", ROWS).__name__.endswith("torch")


def test_unknown_backends():
    with pytest.raises(PlanError, match="did you mean 'triton'"):
        spread([ROWS], 2, backend="tritn")
    with pytest.raises(PlanError, match="Known: naive, numba, torch, triton"), use_backend(uuid.uuid4().hex):
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
def test_a_gpu_gets_triton_where_both_are_recent(version, capability, why_not, monkeypatch, afresh):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    pretend(monkeypatch, "triton", version and SimpleNamespace(__version__=version))
    assert dispatch.refusal("maxmin", "triton", OnGPU()) == why_not
