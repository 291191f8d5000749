"""A small selection runs on one thread, and torch's own setting comes back whatever happens."""

import pytest
import torch
from tests.support.tokens import visual_tokens

from vlm_pruner.methods import registry
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops.threads import own_threads
from vlm_pruner.types import Selection, VisualTokens


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_inside_and_two_again_after_an_error():
    seen = []

    def fail():
        with own_threads(torch.ones(4, 4)):
            seen.append(torch.get_num_threads())
            raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        fail()
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_large_selections_keep_their_threads():
    with own_threads(torch.empty(1, 1).expand(1 << 12, 1 << 12)):
        assert torch.get_num_threads() == 2


def test_every_method_does_so(monkeypatch):
    class Spy(PruningMethod):
        name = "spy"

        def select(self, tokens: VisualTokens, keep: int) -> Selection:
            seen.append(torch.get_num_threads())
            return Selection(torch.arange(keep))

    seen: list[int] = []
    Spy().select(visual_tokens(), 3)
    Spy().select_batch([visual_tokens()] * 2, [3, 3])
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 2
    assert "spy" not in registry()
