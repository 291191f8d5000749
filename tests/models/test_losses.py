"""What training minimises, by hand where the numbers are few, and on the shipped weights, which know the answers."""

from __future__ import annotations

import math
import queue
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from vlm_pruner.models import load_embedded
from vlm_pruner.models.embedded.tokenizer import pieces
from vlm_pruner.models.embedded.train import data, decoder, video
from vlm_pruner.models.embedded.train.data import Pool, fixed_batch
from vlm_pruner.models.embedded.train.decoder import DULL, answer, decoder_loss, looking_loss, tower_features
from vlm_pruner.models.embedded.train.dense import DenseHeads, _family_loss, dense_loss, patch_rows, tower_states
from vlm_pruner.models.embedded.train.labels import FAMILIES, IGNORE, NONE
from vlm_pruner.models.embedded.train.loop import Stage
from vlm_pruner.models.embedded.train.packed import HEAD, Packed
from vlm_pruner.models.embedded.train.video import VideoPool
from vlm_pruner.scenes.questions import ONE_IMAGE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> LlavaForConditionalGeneration:
    return load_embedded()[0]


@pytest.fixture(scope="module")
def samples() -> dict[str, Tensor]:
    """Two pictures with their labels and questions."""
    return fixed_batch(2, True)


@pytest.fixture(scope="module")
def batch(model: LlavaForConditionalGeneration, samples: dict[str, Tensor]) -> dict[str, Tensor]:
    return tower_features(model, CPU)(samples)


def test_the_tower_sees_only_the_patches_that_are_kept(
    model: LlavaForConditionalGeneration, samples: dict[str, Tensor]
) -> None:
    patches = patch_rows(samples["image"])
    keep = torch.stack([torch.arange(40, 60), torch.arange(400, 420)])
    with torch.no_grad():
        found = tower_states(model, patches, keep)
        alone = torch.cat([tower_states(model, patches[i : i + 1], keep[i : i + 1].flip(1)) for i in range(2)])
    assert found.shape == (2, 21, model.config.vision_config.hidden_size)
    torch.testing.assert_close(found, torch.cat([alone[:, :1], alone[:, 1:].flip(1)], 1), atol=1e-4, rtol=0)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_none_counts_less_and_what_is_ignored_nothing() -> None:
    """Two labels and "none"; accuracy is that of the named tokens."""
    logits = torch.tensor([[2.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.5, 0.0, 1.0], [0.0, 1.0, 3.0], [9.0, 0.0, 0.0]])
    label = torch.tensor([0, 1, NONE, NONE, IGNORE])
    loss, accuracy = _family_loss(logits, label, torch.tensor([True, True, True, False, True]))
    each = F.cross_entropy(logits[:4], torch.tensor([0, 1, 2, 2]), reduction="none")
    weight = torch.tensor([1.0, 1.0, 0.3, 0.03])
    assert loss.item() == pytest.approx(float((each * weight).sum() / weight.sum()), rel=1e-5)
    assert accuracy == 0.5
    assert _family_loss(logits, torch.full((5,), IGNORE), torch.zeros(5, dtype=torch.bool)) == (0, 0)


def test_the_warm_up_names_every_family(model: LlavaForConditionalGeneration, samples: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    loss, figures = dense_loss(model, DenseHeads(model), samples, 64)
    assert list(figures) == [*FAMILIES, "offsets", "shown"]
    assert all(math.isfinite(x) for x in (loss.item(), *figures.values()))
    assert all(0 <= figures[name] <= 1 for name in FAMILIES)


def test_half_of_the_heads_are_drawn_to_the_evidence() -> None:
    """Two images of two tokens, two questions of three places each; the second layer looks at the first token."""
    rows = {
        "b": torch.tensor([1, 0]), "q": torch.tensor([1, 0]), "place": torch.tensor([2, 1]),
        "evidence": torch.tensor([[False, True], [False, False]]), "sink": torch.tensor([False, True]),
    }  # fmt: skip
    seen = torch.zeros(1, 4, 12, HEAD + 4)  # [groups, heads, images * questions * places, prefix]
    seen[0, :, 11, HEAD + 3] = torch.tensor([0.5, 0.25, 0.9, 0.9])  # of the second image: its second token
    seen[0, :, 1, 0] = torch.tensor([0.75, 0.25, 0.9, 0.9])
    other = torch.zeros_like(seen)
    other[..., 0] = 0.8
    packed = Packed(torch.zeros(0), {2: seen, 3: other})
    first = -(math.log(0.375 + 1e-3) + math.log(0.5 + 1e-3)) / 2
    second = -(math.log(1e-3) + math.log(0.8 + 1e-3)) / 2
    assert looking_loss(packed, rows, 2, 2, 3).item() == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("images", [1, 2])
def test_the_shipped_decoder_answers_its_questions(
    model: LlavaForConditionalGeneration, batch: dict[str, Tensor], images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is the answers' cross entropy, dull pieces at a tenth, and the pull to the evidence."""
    monkeypatch.setattr(decoder, "ASKED", 8)
    few = batch | {key: batch[key][:, :8] for key in ("tokens", "target", "start", "evidence", "type", "subject")}
    torch.manual_seed(0)
    with torch.no_grad():
        loss, figures = decoder_loss(model, few, 576, looking=0.5, sighted=True, pairs=images - 1)
        rows = answer(model, few, 576, images)[1]
    weight = torch.tensor([0.1 if pieces()[i] in DULL else 1.0 for i in rows["target"].tolist()])
    each = F.cross_entropy(rows["logits"], rows["target"], reduction="none")
    answers = float((each * weight).sum() / weight.sum())
    assert answers < images  # 5 by chance
    assert figures["answers"] == pytest.approx(answers, rel=1e-3)
    assert loss.item() == pytest.approx(answers + 0.5 * figures["looking"], rel=1e-3)
    right = {name: share for name, share in figures.items() if name not in ("answers", "looking")}
    assert set(right) <= {("pair_" if images == 2 else "") + name for name in ONE_IMAGE}
    assert np.mean(list(right.values())) > 0.8


def test_progress_is_the_share_of_steps_or_of_minutes() -> None:
    def stage(minutes: float | None) -> Stage:
        return Stage("x", {}, 8, minutes, 1, 1e-3, lambda *_: (torch.zeros(()), {}), [], dict)

    assert stage(None).progress(2, 99.0) == 0.25
    assert stage(2.0).progress(2, 30.0) == 0.25


class Crowded:
    """A channel that is full at first; the third batch is too much."""

    def __init__(self) -> None:
        self.asked, self.taken, self.left = 0, 0, False

    def put(self, arrays: Any, timeout: float) -> None:
        self.asked += 1
        if self.asked <= 2:
            raise queue.Full
        if self.taken == 2:
            raise RuntimeError("enough")
        self.taken += 1

    def cancel_join_thread(self) -> None:
        self.left = True


class Trainer:
    def __init__(self, alive: bool) -> None:
        self.alive = alive

    def is_alive(self) -> bool:
        return self.alive


@pytest.mark.parametrize("trainer", [None, Trainer(False)], ids=["none", "killed"])
def test_a_worker_ends_with_its_trainer(monkeypatch: pytest.MonkeyPatch, trainer: Trainer | None) -> None:
    monkeypatch.setattr(data.mp, "parent_process", lambda: trainer)
    monkeypatch.setattr(data, "_draw_arrays", lambda *_: {})
    monkeypatch.setattr(data.torch, "set_num_threads", lambda _: None)
    channel: Any = Crowded()
    data._work(channel, [1], False)
    assert channel.left
    assert (channel.asked, channel.taken) == (1, 0)


def test_a_worker_waits_while_its_trainer_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.mp, "parent_process", lambda: Trainer(True))
    monkeypatch.setattr(data, "_draw_arrays", lambda *_: {})
    monkeypatch.setattr(data.torch, "set_num_threads", lambda _: None)
    channel: Any = Crowded()
    with pytest.raises(RuntimeError, match="enough"):
        data._work(channel, [1], False)
    assert channel.taken == 2


def test_videos_are_pooled_eight_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "draw_sample", lambda rng: {"item": rng.integers(0, 100, 4)})
    pool: Pool = VideoPool(12, (7, 1), True, 0)
    pool.start(0)
    pool.refresh(1)
    assert (pool.filled, pool.seen) == (8, 8)
    assert pool.data["item"].shape == (12, 4)
    assert len(set(pool.data["item"][:8].flatten().tolist())) > 8


def test_the_loss_of_videos_weighs_dull_pieces_less_and_adds_where_heads_look(
    monkeypatch: pytest.MonkeyPatch, model: LlavaForConditionalGeneration
) -> None:
    dull = next(iter(DULL))
    target = torch.tensor([pieces().index(dull), next(i for i, piece in enumerate(pieces()) if piece not in DULL)])
    logits = torch.randn(2, model.config.text_config.vocab_size, generator=torch.Generator().manual_seed(0))
    asked: dict[str, Any] = {}

    def answered(*_: Any, **options: Any) -> tuple[None, dict[str, Tensor]]:
        asked.update(options)
        return None, {"logits": logits, "target": target}

    monkeypatch.setattr(video, "answer", answered)
    monkeypatch.setattr(video, "looking_loss", lambda *_: torch.tensor(0.5))
    monkeypatch.setattr(video, "exact", lambda *_: {"word": 1.0})
    loss, info = video.video_loss(model, {}, 16, looking=3.0, sighted=True)
    plain = F.cross_entropy(logits, target, reduction="none")
    expected = (plain[0] * DULL[dull] + plain[1]) / (DULL[dull] + 1)
    assert loss.item() == pytest.approx(expected.item() + 3 * 0.5)
    assert info == {"word": 1.0, "answers": pytest.approx(expected.item()), "looking": 0.5}
    assert asked == {"foreign": 0, "watch": (2, 3), "total": video.TOTAL}
    video.video_loss(model, {}, 16, looking=3.0, sighted=False)
    assert asked["foreign"] == 2
