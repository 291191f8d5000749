"""How often a kernel is launched depends on the op alone: not on the images, their number, their size or the budget."""

import importlib
import importlib.util
from collections import Counter

import pytest
import torch
from tests.support.device import counted_operations, kernels_written_down
from tests.support.ops import DEVICE, blobs, raster, running

from vlm_pruner.methods import create
from vlm_pruner.ops import GrowthRule, dpp, facility, farthest_points, grow, merge, screen, spread
from vlm_pruner.types import VisualTokens

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def growth(images: int, n: int, keep: int) -> None:
    place, diagonal = raster(n)
    unit = torch.nn.functional.normalize(features(images, n), dim=2)
    pivots = torch.arange(2, device=DEVICE).expand(images, -1)
    grow(unit, place.expand(images, -1, -1).to(DEVICE), diagonal.expand(images).to(DEVICE), pivots, keep, GrowthRule())


def features(images: int, n: int) -> torch.Tensor:
    return torch.stack([blobs(n, 24, seed) for seed in range(images)]).to(DEVICE)


def merging(images: int, n: int, keep: int) -> None:
    index, source = torch.arange(keep, device=DEVICE), torch.arange(n, device=DEVICE) % keep
    weight = torch.ones(images, n, device=DEVICE)
    merge(features(images, n).unbind(), index.expand(images, -1), source.expand(images, -1), weight, 0.3)


def volume(images: int, n: int, keep: int) -> None:
    dpp(features(images, n).unbind(), torch.ones(images, n, device=DEVICE).unbind(), keep)


OPS = {
    "pivots": (lambda b, n, k: farthest_points(features(b, n)[:, None].unbind(), k), {"_whole": 1}),
    "screen": (lambda b, n, k: screen(features(b, n).unbind(), k), {"_variances": 1, "_unit_rows": 1}),
    "growth": (growth, {"_whole": 1}),
    "merge": (merging, {"_fold": 1}),
    "maxmin": (lambda b, n, k: spread(features(b, n).unbind(), k), {"_lengths": 1, "_neighbours": 1, "_choose": 1}),
    "maxmin from a start": (
        lambda b, n, k: spread(features(b, n).unbind(), k, start=0),
        {"_lengths": 1, "_choose": 1},
    ),
    "dpp": (volume, {"_whole": 1}),
    "facility": (lambda b, n, k: facility(features(b, n), k), {"_choose": 1}),
}


@pytest.mark.parametrize(("images", "n", "keep"), [(1, 9, 2), (1, 300, 3), (3, 40, 20)])
@pytest.mark.parametrize("op", OPS)
def test_launches(op, images, n, keep, monkeypatch):
    launches, interface = Counter(), importlib.import_module("triton.runtime.jit").KernelInterface
    launch, (run, expected) = interface.__getitem__, OPS[op]

    def counted(self, grid):
        launches[self.fn.__name__] += 1
        return launch(self, grid)

    monkeypatch.setattr(interface, "__getitem__", counted)
    with running("triton"):
        run(images, n, keep)
    assert launches == expected


@pytest.mark.parametrize(("images", "n", "keep"), [(1, 131_072, 65_536), (8, 131_072, 100_000), (200, 2880, 320)])
@pytest.mark.parametrize("method", ["vlm-pruner", "divprune"])
def test_no_grid_exceeds_a_device(images, n, keep, method):
    """Half of 131,072 tokens are more than the second axis of a grid may have; 200 images are more than processors."""
    features = torch.empty(images, n, 4096, dtype=torch.bfloat16, device="meta").unbind()
    keys = torch.empty(images, 8, n, 128, dtype=torch.bfloat16, device="meta").unbind()
    tokens = [VisualTokens(f, k, (1, n // 64, 64)) for f, k in zip(features, keys, strict=True)]
    with kernels_written_down("triton") as launches:
        create(method).select_batch(tokens, [keep] * images)
    assert len(launches) == {"vlm-pruner": 5, "divprune": 3}[method]
    for launch in launches:
        launch.check()


@pytest.mark.parametrize(("method", "most"), [("vlm-pruner", 11), ("divprune", 2)])
def test_few_operations_between_the_kernels(method, most):
    """Each takes the host as long as a kernel: what a kernel can set itself is not filled beforehand."""
    features, keys = torch.empty(576, 4096, device="meta"), torch.empty(32, 576, 128, device="meta")
    tokens, chooser = [VisualTokens(features, keys, (1, 24, 24))], create(method)
    with kernels_written_down("triton"), counted_operations() as ran:
        chooser.select_batch(tokens, [64])
        ran.clear()
        chooser.select_batch(tokens, [64])
    assert len(ran) <= most, ran
