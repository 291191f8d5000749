"""Training samples, drawn without end by worker processes: images, dense labels and tokenised questions."""

from __future__ import annotations

import multiprocessing as mp
import queue
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.context import SpawnProcess

import numpy as np
import torch

from vlm_pruner.models.embedded.tokenizer import ASSISTANT, EOS, build_tokenizer, pieces
from vlm_pruner.scenes import vocabulary as v
from vlm_pruner.scenes.layout import Scene, sample_scene
from vlm_pruner.scenes.questions import ONE_IMAGE, TYPES, Draft
from vlm_pruner.scenes.render import backgrounds, render

from .labels import token_labels

QUESTIONS = 40  # per image
LENGTH = 13  # tokens of one question block: question, ASSISTANT:, answer without its last token
STEPS = 7  # answer tokens that are predicted, at most: the space piece and six characters, or one word, then the end
FREQUENCY = {
    "presence": 3,
    "category": 3,
    "color": 3,
    "counting": 3,
    "relation": 4,
    "position": 3,
    "comparison": 3,
    "number": 3,
    "word": 3,
    "code": 4,
    "character": 5,
    "small": 2,
    "background": 1,
}
READING = ("number", "word", "code")
SUBJECTS = v.CATEGORIES + v.TINY + v.KINDS  # what a question can be about, so that it stays well-posed with two images
SINK = 62  # bit of the evidence mask that stands for "nothing to see": the first token of the sequence


@cache
def _encoder() -> tuple[Callable[[str], tuple[int, ...]], int, int]:
    tokenizer = build_tokenizer()
    end, answer = pieces().index(EOS), pieces().index(ASSISTANT)

    @cache
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode, end, answer


def tokenise(draft: Draft) -> tuple[list[int], int, list[int], list[int]]:
    """Block tokens, number of question tokens, predicted tokens, and the evidence items of each, as bits."""
    encode, end, answer = _encoder()
    question = [*encode(draft.text), answer]
    target = [*encode(draft.answer), end]
    if draft.type in READING:
        bits = [1 << draft.items[0]] + [1 << i for i in draft.items] + [1 << SINK]
    else:
        items = draft.items[:1] if draft.type in ("comparison", "relation") else draft.items
        bits = [sum(1 << i for i in items)] * (len(target) - 1) + [0]
        if draft.type == "presence" and not items:
            bits[0] = 1 << SINK
    return question + target[:-1], len(question), target, bits


def subject(draft: Draft) -> int:
    """Index into SUBJECTS of what the question is about; -1 if it speaks of all that the image shows."""
    if draft.type in ("presence", "category", "comparison", "background"):
        return -1
    words = draft.text.rstrip("?").split()
    return SUBJECTS.index(words[2 if draft.type == "counting" else -1])


def pack(drafts: Sequence[Draft]) -> dict[str, np.ndarray]:
    """Question tensors of one image.

    tokens [q, LENGTH]; target (-1: none) and evidence [q, STEPS + 1]; start, type and subject [q].
    """
    out: dict[str, np.ndarray] = {
        "tokens": np.zeros((len(drafts), LENGTH), np.int16),
        "target": np.full((len(drafts), STEPS + 1), -1, np.int16),
        "start": np.zeros(
            len(drafts), np.int8
        ),  # place of ASSISTANT: in the block, which predicts the first answer token
        "evidence": np.zeros((len(drafts), STEPS + 1), np.int64),
        "type": np.array([TYPES.index(d.type) for d in drafts], np.int8),
        "subject": np.array([subject(d) for d in drafts], np.int8),
    }
    for row, draft in enumerate(drafts):
        tokens, asked, target, bits = tokenise(draft)
        out["tokens"][row, : len(tokens)] = tokens
        out["target"][row, : len(target)] = target
        out["start"][row] = asked - 1
        out["evidence"][row, : len(bits)] = bits
    return out


def draw_drafts(rng: np.random.Generator, scene: Scene, count: int) -> list[Draft]:
    names, weights = list(FREQUENCY), np.array(list(FREQUENCY.values()), float)
    drafts: list[Draft] = []
    while len(drafts) < count:
        for name in rng.choice(names, count, p=weights / weights.sum()):
            draft = ONE_IMAGE[str(name)](rng, scene)
            if draft and len(drafts) < count:
                drafts.append(draft)
    return drafts


def draw_sample(rng: np.random.Generator, questions: bool, split: str = "train") -> dict[str, np.ndarray]:
    scene = sample_scene(rng, split, len(backgrounds(split)))
    drawn = render(scene)
    labels, item, offsets = token_labels(scene, drawn)
    shown = {t.name for t in scene.things} | {p.kind for p in scene.plates}
    sample = {
        "image": np.asarray(drawn.image),
        "labels": labels,
        "item": item,
        "offsets": offsets,
        "shown": np.array([c in shown for c in SUBJECTS]),
    }
    return sample | (pack(draw_drafts(rng, scene, QUESTIONS)) if questions else {})


def fixed_batch(count: int, questions: bool, split: str = "validation", seed: int = 1) -> dict[str, torch.Tensor]:
    """A batch that is the same in every run: to watch learning on photographs that training never shows."""
    rng = np.random.default_rng([seed, len(split)])
    samples = [draw_sample(rng, questions, split) for _ in range(count)]
    return {k: torch.from_numpy(np.stack([s[k] for s in samples])) for k in samples[0]}


def _draw_arrays(rng: np.random.Generator, questions: bool) -> dict[str, np.ndarray]:
    """Eight new training samples, stacked."""
    samples = [draw_sample(rng, questions) for _ in range(8)]
    return {k: np.stack([s[k] for s in samples]) for k in samples[0]}


def _work(channel: mp.Queue[dict[str, np.ndarray]], seed: Sequence[int], questions: bool) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    trainer = mp.parent_process()
    while True:
        arrays = _draw_arrays(rng, questions)
        while True:
            try:
                channel.put(arrays, timeout=5)
                break
            except queue.Full:
                if trainer is None or not trainer.is_alive():  # it was killed: nobody will end this process
                    channel.cancel_join_thread()
                    return


class Pool:
    """A replay pool in memory, refreshed by worker processes when they are ready; drawing never waits for them."""

    def __init__(
        self,
        size: int,
        seed: Sequence[int],
        questions: bool,
        workers: int = 1,
        transform: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
    ):
        """`seed`: words that all workers share; with no workers, `refresh` draws the samples itself."""
        self.size, self.seed, self.questions, self.count, self.transform = size, seed, questions, workers, transform
        self.filled, self.seen = 0, 0
        self.data: dict[str, torch.Tensor] = {}
        self.workers: list[SpawnProcess] = []

    def start(self, step: int) -> None:
        """Start drawing. `step` is part of the seed, so that an interrupted stage goes on with new scenes."""
        seeds = [[0, *self.seed, step, worker] for worker in range(max(1, self.count))]  # 0: see scenes.SPLITS
        self.rng = np.random.default_rng(seeds[0])
        context = mp.get_context("spawn")
        self.channel: mp.Queue[dict[str, np.ndarray]] = context.Queue(maxsize=6)
        for seed in seeds[: self.count]:
            worker = context.Process(target=_work, args=(self.channel, seed, self.questions), daemon=True)
            worker.start()
            self.workers.append(worker)

    def _next(self, wait: bool) -> dict[str, np.ndarray] | None:
        if not self.workers:
            return _draw_arrays(self.rng, self.questions)
        try:
            return self.channel.get(timeout=120) if wait else self.channel.get_nowait()
        except queue.Empty:
            return None

    def refresh(self, at_most: int, wait: bool = False) -> None:
        """Take up to `at_most` new batches of those that are ready (or wait for them)."""
        for _ in range(at_most):
            arrays = self._next(wait)
            if arrays is None:
                break
            batch = {k: torch.from_numpy(a) for k, a in arrays.items()}
            batch = self.transform(batch) if self.transform else batch
            count = len(batch["item"])
            if not self.data:
                self.data = {k: torch.zeros((self.size, *a.shape[1:]), dtype=a.dtype) for k, a in batch.items()}
            where = (torch.arange(count) + self.seen) % self.size
            for key, rows in batch.items():
                self.data[key][where] = rows
            self.seen += count
            self.filled = min(self.size, self.filled + count)

    def draw(self, count: int) -> torch.Tensor:
        return torch.randint(self.filled, (count,))

    def close(self) -> None:
        for worker in self.workers:
            worker.terminate()
            worker.join()
