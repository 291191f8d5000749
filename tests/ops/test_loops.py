"""What compiled loops see of a tensor: every number of half precision, any strides, and no place to keep their code."""

import importlib

import numpy as np
import pytest
import torch
from tests.support.ops import blobs, raster, running, triton

from vlm_pruner.ops import GrowthRule, dpp, facility, farthest_points, grow, merge, screen, spread

numba = pytest.importorskip("numba")
loops = importlib.import_module("vlm_pruner.ops.loops")


@loops.compiled
def floats(memory):
    out = np.empty(len(memory), np.float32)
    for i in range(len(memory)):
        out[i] = loops.value(memory[i])
    return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_number_of_half_precision(dtype):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    found = torch.from_numpy(floats(loops.numbers(every)[0]))
    torch.testing.assert_close(found, every.float(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.signbit(), every.float().signbit())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_other_numbers(dtype):
    rows = torch.randn(9, dtype=dtype)
    assert floats(loops.numbers(rows)[0]).tolist() == rows.float().tolist()


@pytest.mark.parametrize("d", [1, 255, 256, 257, 600])
def test_products_of_a_row_with_one_to_four_others(d):
    """Added up 256 channels at a time; numbers of two bits are added up exactly."""
    generator = np.random.default_rng(d)
    rows, own = (generator.integers(-2, 3, size).astype(np.float32) for size in ((6, d), d))
    for tokens in ([4], [5, 0], [3, 1, 2], [0, 5, 1, 4]):
        out = np.full(4, np.nan)
        loops.dots(rows.ravel(), d, own, np.array(tokens), out)
        assert out[: len(tokens)].tolist() == (rows[tokens] @ own).tolist()


def test_memory_begins_and_ends_with_the_tensor():
    rows = torch.arange(60.0).view(6, 10)[1:4, 2:7]
    memory, strides = loops.numbers(rows)
    assert strides == (10,)
    assert memory[[0, 4, 10, -1]].tolist() == [12.0, 16.0, 22.0, 36.0]
    assert np.shares_memory(memory, rows.numpy())
    memory, strides = loops.numbers(rows.T)  # not dense: copied
    assert (memory.tolist(), strides) == (rows.T.flatten().tolist(), (3,))


def strided(rows: torch.Tensor) -> torch.Tensor:
    """The same values, the last axis not dense."""
    return rows.transpose(-1, -2).contiguous().transpose(-1, -2)


@pytest.mark.parametrize("backend", ["numba", triton])
def test_axes_in_any_order(backend):
    keys, rows = blobs(70, 48, 0).view(70, 3, 16).transpose(0, 1), blobs(70, 48, 1) * torch.linspace(0.1, 2, 48)
    place, diagonal = raster(70)
    pivots = farthest_points([keys], 4, backend="naive")
    unit = screen([rows], 20, backend="naive")
    given = [unit, place[None], diagonal[None], pivots, 30, GrowthRule()]
    grown = grow(*given, backend="naive")
    cover = rows @ rows.T
    with running(backend):
        assert torch.equal(farthest_points([strided(keys)], 4), pivots)
        assert torch.equal(spread([strided(rows)], 9), spread([rows], 9, backend="naive"))
        assert torch.equal(dpp([strided(rows)], [torch.ones(70)], 9), dpp([rows], [torch.ones(70)], 9, backend="naive"))
        assert torch.equal(facility(strided(cover)[None], 9), facility(cover[None], 9, backend="naive"))
        torch.testing.assert_close(screen([strided(rows)], 20), unit)
        given[:2] = strided(unit), strided(place[None])
        assert torch.equal(grow(*given).order, grown.order)
        given = [grown.order, grown.owner, grown.similarity, 0.3]
        found, expected = merge([strided(rows)], *given), merge([rows], *given, backend="naive")
        torch.testing.assert_close(found, expected)


def test_features_with_a_gradient():
    rows = blobs(20, 8, 0)
    with running("numba"):
        assert torch.equal(screen([rows.clone().requires_grad_()], 4), screen([rows], 4))


def test_without_a_place_to_keep_the_code(monkeypatch):
    """As from a package that cannot be written to, for a user without a home."""
    caching = importlib.import_module("numba.core.caching")
    monkeypatch.setattr(getattr(caching, "CacheImpl", None) or caching._CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(lambda x: 2 * x)
    assert loops.compiled(lambda x: 2 * x)(21) == 42


def test_what_is_kept_belongs_to_this_state_of_the_loops(monkeypatch, tmp_path):
    """The functions that loops share are part of their code, and Numba does not see where these come from."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for state, count in (("one", 1), ("one", 1), ("other", 2)):
        monkeypatch.setattr(loops, "_check_sum", lambda state=state: state)
        assert loops.compiled(lambda x: 2 * x)(21) == 42
        assert len(list(tmp_path.rglob("*.nbi"))) == count


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [slice(7, 9), slice(None)], ids=["two rows", "all rows"])
def test_values_that_are_no_numbers_lead_nowhere(wrong, where):
    """Nothing compares with a NaN: loops come to an end, and the tokens are real and different."""
    plain = blobs(40, 12, 0)
    features, weight = plain.clone(), torch.ones(40)
    features[where, 3] = weight[where] = wrong
    cover = (features @ features.T)[None]
    with running("numba"):
        chosen = [
            farthest_points([features[None]], 12),
            spread([features], 12),
            spread([plain], 12, weight=[weight]),
            spread([features], 12, start=8, weight=[weight]),
            facility(cover, 12),
            facility(cover, 12, weight[None]),
            facility(cover, 12, None, weight[None]),
            dpp([features], [torch.ones(40)], 12),
            dpp([plain], [weight], 12),
        ]
    for (tokens,) in (c.tolist() for c in chosen):
        assert len(set(tokens)) == 12
        assert set(tokens) <= set(range(40))
