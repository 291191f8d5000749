"""The guard on reads notices every way of reading, and lets declared ones through."""

import pytest
import torch
from tests.support.sync import UndeclaredReadError, no_undeclared_reads

from vlm_pruner.ops import declared_sync


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.sum().item(),
        lambda t: t.tolist(),
        lambda t: bool(t.any()),
        lambda t: t[t > 0],
        lambda t: torch.masked_select(t, t > 0),
        lambda t: (t > 0).nonzero(),
        lambda t: t.cpu(),
        lambda t: range(int(t.sum())),
        lambda t: t[t.argmax()],
    ],
)
def test_reads_are_caught_unless_declared(read):
    with no_undeclared_reads(), pytest.raises(UndeclaredReadError):
        read(torch.ones(3))
    with no_undeclared_reads(), declared_sync():
        read(torch.ones(3))
