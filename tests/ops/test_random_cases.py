"""200 random images of 1 to 1,200 tokens: the fast paths keep what the definition keeps, whatever lies around them.

None is left out because rounding would decide: in case 30 a block ends between two tokens whose redundancies differ by
3e-8, which is less than what float32 makes of them.
"""

import pytest
import torch
from tests.support.ops import DEVICE, blobs, grid_of, numba, of_shares, poisoned, running, triton, unwritten

from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.types import Selection, VisualTokens

SHARES = 8
EACH = of_shares(SHARES, torch={0, 1, 2}, numba={0, 1, 2}, triton={1})  # share 0 has the one of 1,200 tokens


def image(seed: int) -> tuple[VisualTokens, VLMPruner, int]:
    """Tokens in views surrounded by NaN, a method with rules of its own, and a budget; most images are small."""
    random = torch.Generator().manual_seed(seed)
    n = 1200 if seed == 0 else int(1200 ** torch.rand((), generator=random).item())

    def pick(*choices):
        return choices[int(torch.randint(len(choices), (), generator=random))]

    keep = 1 + int(torch.randint(min(n, 48), (), generator=random))
    features = poisoned(blobs(n, 40, seed, groups=pick(2, 6, 20), noise=pick(0.1, 0.4, 1.0)))
    keys = poisoned(blobs(n, 24, seed + 1000).view(n, 2, 12).transpose(0, 1))
    method = VLMPruner(channels=24, pivots=pick(1, 4, 7), token_batch=pick(7, 16, 33), fill=pick(True, True, False))
    return VisualTokens(features, keys, (1, *grid_of(n))), method, keep


def select(backend: str, seed: int) -> Selection:
    tokens, method, keep = image(seed)
    with running(backend):
        return method.select(tokens, keep)


@pytest.mark.parametrize(("backend", "share"), EACH)
def test_kept_sets_and_merged_rows(backend, share, monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: unwritten(empty(*a, **k)))
    for seed in range(share, 200, SHARES):
        found, expected = select(backend, seed), select("naive", seed)
        assert found.index.tolist() == expected.index.tolist(), f"seed {seed}"
        torch.testing.assert_close(found.features, expected.features, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["torch", triton, numba])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_what_it_is_in_float32(backend, dtype):
    """Rounded inputs, read in float32 by every op: the same tokens, and merged rows that differ in the last bit."""
    for seed in range(201, 208):
        tokens, method, keep = image(seed)
        half = VisualTokens(poisoned(tokens.features.to(dtype)), poisoned(tokens.keys.to(dtype)), tokens.grid)
        whole = VisualTokens(half.features.float(), half.keys.float(), tokens.grid)
        with running(backend):
            found = method.select(half, keep)
        with running("naive"):
            expected, exact = method.select(half, keep), method.select(whole, keep)
        assert found.index.tolist() == expected.index.tolist() == exact.index.tolist(), f"seed {seed}"
        assert found.features.dtype == dtype
        torch.testing.assert_close(found.features, exact.features.to(dtype), atol=1e-3, rtol=torch.finfo(dtype).eps)


def test_the_inputs_lie_in_nan():
    tokens = image(3)[0]
    assert torch.as_strided(tokens.features, (1,), (1,), tokens.features.storage_offset() - 1).isnan().all()
    assert tokens.features.device.type == DEVICE.type
