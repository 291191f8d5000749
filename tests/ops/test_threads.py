"""A small selection runs on one thread, and torch's own setting comes back whatever happens."""

import threading

import pytest
import torch
from tests.support.tokens import visual_tokens

from vlm_pruner.methods import create, registry
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.ops import dispatch, use_backend
from vlm_pruner.ops.threads import own_threads, share_out
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


CPU = torch.device("cpu")


def test_a_batch_is_shared_out_and_keeps_its_order():
    both_are_here, seen = threading.Barrier(2), []

    def work(part):
        both_are_here.wait(timeout=10)
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return [10 * i for i in part]

    with own_threads(torch.ones(4, 4)):
        assert share_out(range(5), work, CPU) == [0, 10, 20, 30, 40]
    assert len(dict(seen)) == 2
    assert {threads for _, threads in seen} == {1}
    assert torch.get_num_threads() == 2


def test_threads_inherit_what_belongs_to_a_thread():
    def work(part):
        return [(torch.is_inference_mode_enabled(), torch.is_grad_enabled(), dispatch._forced.get()) for _ in part]

    with use_backend("naive"), torch.inference_mode():
        assert share_out([1, 2], work, CPU) == [(True, False, "naive")] * 2
    assert share_out([1, 2], work, CPU) == [(False, False, None)] * 2


@pytest.mark.parametrize(
    ("images", "device", "threads"), [(1, "cpu", 2), (4, "meta", 2), (4, "cpu", 1), (3, "cpu", 4)], ids=str
)
def test_what_is_not_shared_out(images, device, threads):
    """One image, what is on a device, no second thread, and fewer large images than threads."""
    torch.set_num_threads(threads)
    parts = []

    def work(part):
        parts.append((len(part), torch.get_num_threads()))
        return list(part)

    share_out(range(images), work, torch.device(device))
    assert parts == [(images, threads)]


def test_an_error_in_a_thread_comes_back():
    def fail(part):
        raise RuntimeError(f"at {part[0]}")

    with pytest.raises(RuntimeError, match="at 0"):
        share_out([0, 1], fail, CPU)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["vlm-pruner", "divprune"])
def test_batches_are_chosen_as_image_by_image(name):
    method, images = create(name), [visual_tokens(seed=seed) for seed in range(5)]
    together = method.select_batch(images, [7, 7, 7, 9, 7])
    alone = [method.select(image, keep) for image, keep in zip(images, [7, 7, 7, 9, 7], strict=True)]
    assert [found.order.tolist() for found in together] == [found.order.tolist() for found in alone]
