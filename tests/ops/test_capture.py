"""Inside a CUDA graph a batch is selected from as outside: recorded on some values, replayed on others.

Without a device, `tests/methods/test_contract.py` holds every method to what a recording asks for.
"""

import pytest
import torch
from tests.support.device import moved
from tests.support.registered import FIXED
from tests.support.tokens import visual_tokens

from vlm_pruner.methods import create

LOOKED_AT = {"prunesid"}  # torch looks on the host whether an eigendecomposition converged
EXACT = sorted(set(FIXED) - LOOKED_AT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", EXACT)
def test_replayed_on_other_values(name):
    method, keep = create(name), [20] * 3
    first, second = (
        [moved(visual_tokens((1, 12, 11), seed=s), "cuda") for s in seeds] for seeds in (range(3), (7, 8, 9))
    )
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        method.select_batch(first, keep)  # compiles, and hands over what depends on shapes alone
        expected = method.select_batch(second, keep)
    with torch.cuda.graph(graph, stream=stream):
        recorded = method.select_batch(first, keep)
    for images in (first, second):
        for held, given in zip(first, images, strict=True):
            copy(held, given)
        graph.replay()
    torch.cuda.synchronize()
    for found, other in zip(recorded, expected, strict=True):
        assert found.index.tolist() == other.index.tolist()
        assert (found.features is None) == (other.features is None)
        if found.features is not None:
            torch.testing.assert_close(found.features, other.features)


def copy(held, given) -> None:
    """Every tensor of `given` into that of `held`."""
    for name, value in vars(held).items():
        if isinstance(value, torch.Tensor):
            value.copy_(getattr(given, name))
        elif hasattr(value, "__dataclass_fields__"):
            copy(value, getattr(given, name))
