"""200 random images of 1 to 1,200 tokens each: diversity, volume and facility location are chosen as defined."""

import pytest
import torch
from tests.support.ops import blobs, of_shares, poisoned, running, unwritten

from vlm_pruner.ops import dpp, facility, spread

SHARES = 8
EACH = of_shares(SHARES, torch={0, 4}, numba={0, 4}, triton={4})  # share 0 has the one of 1,200 tokens
DTYPES = (torch.float32, torch.float32, torch.bfloat16, torch.float16)


def drawn(seed: int):
    """(a generator, a number of tokens, a budget); most images are small."""
    random = torch.Generator().manual_seed(seed)
    n = 1200 if seed == 0 else int(1200 ** torch.rand((), generator=random).item())
    return random, n, 1 + int(torch.randint(min(n, 8), (), generator=random))


def drawn_images(random: torch.Generator, n: int, seed: int) -> list[torch.Tensor]:
    """One image or two, of any dtype."""
    noise = float(torch.rand((), generator=random)) + 0.1
    rows = [blobs(n, 40, seed + 1000 * i, noise=noise) for i in range(1 + seed % 2)]
    return [poisoned(r.to(DTYPES[seed % 4])) for r in rows]


@pytest.fixture(autouse=True)
def nan_in_new_memory(monkeypatch):
    """Memory that nobody has written yet holds NaN."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: unwritten(empty(*a, **k)))


@pytest.mark.parametrize(("backend", "share"), EACH)
def test_max_min_diversity(backend, share):
    for seed in range(share, 200, SHARES):
        random, n, keep = drawn(seed)
        images = drawn_images(random, n, seed)
        given = {"start": n // 2} if seed % 3 == 0 else {}
        if seed % 5 == 0:
            given["weight"] = [poisoned(torch.rand(n, generator=random)) for _ in images]
        with running(backend):
            found = spread(images, keep, **given)
        assert found.tolist() == spread(images, keep, **given, backend="naive").tolist(), f"seed {seed}"


@pytest.mark.parametrize(("backend", "share"), EACH)
def test_volume(backend, share):
    for seed in range(share, 200, SHARES):
        random, n, keep = drawn(seed)
        images = drawn_images(random, n, seed)
        weight = [poisoned(torch.rand(n, generator=random)) for _ in images]
        with running(backend):
            found = dpp(images, weight, keep)
        assert found.tolist() == dpp(images, weight, keep, backend="naive").tolist(), f"seed {seed}"


@pytest.mark.parametrize(("backend", "share"), EACH)
def test_facility_location(backend, share):
    """In eighths, whose sums are exact: ties are many, and in float32 they stay ties."""
    for seed in range(share, 200, SHARES):
        random, n, keep = drawn(seed)
        images, m = 1 + seed % 2, 1 + int(torch.randint(n, (), generator=random))
        cover = poisoned(torch.randint(-8, 9, (images, n, m), generator=random) / 8)
        rows = torch.randint(0, 5, (images, m), generator=random) / 4
        candidates = torch.randint(0, 5, (images, n), generator=random) / 4
        weights = (poisoned(rows) if seed % 3 else None, poisoned(candidates) if seed % 5 else None)
        with running(backend):
            found = facility(cover, keep, *weights)
        assert found.tolist() == facility(cover, keep, *weights, backend="naive").tolist(), f"seed {seed}"
