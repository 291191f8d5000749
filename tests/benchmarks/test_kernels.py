"""The benchmark of the kernels: its batches, its rows, and the checks without which it prints nothing."""

from __future__ import annotations

import argparse

import pytest
import torch
from benchmarks.common import Report
from benchmarks.gpu import kernels
from tests.support.tokens import visual_tokens

from vlm_pruner.methods import create
from vlm_pruner.ops.dispatch import _forced
from vlm_pruner.types import Selection

CPU = torch.device("cpu")


def report() -> Report:
    return Report("gpu/kernels", argparse.Namespace(quick=True, out=None), CPU)


def test_a_batch_lies_in_one_storage_and_begins_with_the_image_itself() -> None:
    given = kernels.cast(visual_tokens(), torch.bfloat16)
    images = kernels.batch_of(given)
    assert len({image.features.untyped_storage().data_ptr() for image in images}) == 1
    assert torch.equal(images[0].features, given.features)
    assert torch.equal(images[1].keys[:, 37], given.keys[:, 0])
    assert not torch.equal(images[1].features, given.features)


def test_rows_of_both_numbers_of_images() -> None:
    made, images = report(), kernels.batch_of(kernels.cast(visual_tokens(), torch.float32))
    kernels.one_size(made, create("vlm-pruner"), images, 12, repeats=2)
    assert [row["name"] for row in made.rows] == [
        "n 42, float32, one image, idle",
        "n 42, float32, 8 images, idle",
        "n 42, float32, one image, torch alone",
    ]
    assert [len(row["samples_ms"]) for row in made.rows] == [2, 2, 1]
    assert (made.broken, made.aims) == ([], [])


@pytest.mark.parametrize(("dtype", "wrong", "broken"), [("float32", 1, 1), ("bfloat16", 1, 1), ("bfloat16", 0, 0)])
def test_other_tokens_than_the_definition_break_the_result(dtype, wrong, broken, monkeypatch) -> None:
    def select(self, tokens, keep) -> Selection:
        first = 0 if _forced.get() == "naive" else wrong
        return Selection(torch.arange(first, first + keep))

    monkeypatch.setattr(type(create("grid")), "select", select)
    made, images = report(), kernels.batch_of(kernels.cast(visual_tokens(), getattr(torch, dtype)))
    kernels.one_size(made, create("grid"), images, 12, repeats=1)
    assert len(made.broken) == broken


def test_calls_are_timed_one_by_one() -> None:
    calls: list[int] = []
    assert len(kernels.in_a_queue(lambda: calls.append(1) or (), CPU, 5)) == 5
    assert len(kernels.on_idle(lambda: calls.append(1) or (), CPU, 4)) == 4
    assert len(calls) == 9
