"""The model that lmms-eval asks: any supported checkpoint under any plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval import utils
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.protocol import ChatMessages
from PIL import Image

from vlm_pruner import __version__
from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking import Loaded
from vlm_pruner.asking.models import moved
from vlm_pruner.asking.opening import open_image
from vlm_pruner.asking.prompts import read_prompt
from vlm_pruner.asking.videos import Shown, open_shown
from vlm_pruner.engine import prune
from vlm_pruner.errors import InputError, PlanError
from vlm_pruner.evaluation.lmms.answers import Answers, Reply, key_of, said_of
from vlm_pruner.evaluation.lmms.arguments import Treatment, open_with, sampling_of, treatment
from vlm_pruner.video import Clip, Sampling

__all__ = ["PrunedModel"]

USUAL = Sampling()
LONGEST = 1024  # tokens of an answer where a task does not say
_GENERATION = ("max_new_tokens", "do_sample", "temperature", "top_p", "num_beams")


class PrunedModel(lmms):  # type: ignore[misc]
    """A pruned model as lmms-eval's chat interface has it. Greedy unless a task asks for samples."""

    is_simple = False

    def __init__(
        self,
        pretrained: str = "embedded",
        method: str = "none",
        keep: Any = None,
        layer: Any = None,
        plan: str | None = None,
        positions: str = "kept",
        dtype: str = "auto",
        device: str = "auto",
        batch_size: Any = 1,
        max_batch_size: Any = None,
        min_pixels: Any = None,
        max_pixels: Any = None,
        fps: Any = None,
        frames: Any = None,
        answers: str | None = None,
        **params: Any,
    ) -> None:
        """Every argument is one of `--model_args`; what is left over is a parameter of the method, or refused.

        Args:
            answers: a file that replies are kept in, so that a killed run goes on.

        Raises:
            VlmPrunerError: a model, a plan or an argument that cannot be had.
        """
        loaded = open_with(pretrained, min_pixels, max_pixels, device=device or "auto", dtype=dtype)
        given = {"method": method, "keep": keep, "layer": layer, "plan": plan, "positions": positions}
        self.setup(loaded, treatment(loaded, **given, params=params), batch_size, answers, sampling_of(fps, frames))

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        how: Treatment,
        batch_size: int = 1,
        answers: str | None = None,
        sampling: Sampling = USUAL,
    ) -> PrunedModel:
        """The same of a model that is loaded already."""
        made = cls.__new__(cls)
        made.setup(loaded, how, batch_size, answers, sampling)
        return made

    def setup(self, loaded: Loaded, how: Treatment, batch_size: Any, answers: str | None, sampling: Sampling) -> None:
        """What both ways to make one share.

        Raises:
            InputError: a batch size that is no whole number above 0.
        """
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise InputError(f"batch_size={batch_size!r} is not a whole number above 0")
        self.loaded, self.how, self.batch_size, self.sampling = loaded, how, int(batch_size), sampling
        self.replies: list[Reply] = []
        self.tell: Callable[[float], None] = lambda share: None
        self._answers = Answers(answers)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # what lmms-eval counts and waits with
            self.accelerator = Accelerator(cpu=self.device.type == "cpu")
        self._form = adapter_for(loaded.model.config.model_type).prompt

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.loaded.model.device)

    def loglikelihood(self, requests: Any) -> Any:
        """Not offered.

        Raises:
            InputError: always.
        """
        raise InputError("tasks that compare likelihoods are not supported: choose one that generates answers")

    def generate_until_multi_round(self, requests: Any) -> Any:
        """Not offered.

        Raises:
            InputError: always.
        """
        raise InputError("tasks of several rounds are not supported: choose one that asks once")

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """One answer a request, in the order of the requests."""
        ordered = utils.Collator([r.args for r in requests], lambda x: (x[3], x[0]), lambda x: x[2], grouping=True)
        done: list[GenerationResult] = []
        for chunk in ordered.get_batched(n=self.batch_size, batch_fn=None):
            replies = self._chunk(chunk)
            self.replies += replies
            self.tell(len(self.replies) / len(requests))
            done += [
                GenerationResult(text=r.text, token_counts=TokenCounts(r.input_tokens, r.output_tokens))
                for r in replies
            ]
        self._log()
        return list(ordered.get_original(done))

    def _chunk(self, chunk: Sequence[Any]) -> list[Reply]:
        """Requests with the same generation arguments; those that were answered before are not asked again."""
        arguments = dict(chunk[0][2])
        keys = [self._key(request) for request in chunk]
        missing = [i for i, key in enumerate(keys) if self._answers.get(key) is None]
        asked = {i: self._messages(chunk[i]) for i in missing}
        moving = [i for i, (_, shown) in asked.items() if any(isinstance(one, Clip) for one in shown)]
        for group in [[i for i in missing if i not in moving], *([i] for i in moving)]:  # a video is asked by itself
            for i, reply in zip(group, self._generate([asked[i] for i in group], arguments), strict=True):
                self._answers.put(keys[i], reply)
        known = (self._answers.get(key) for key in keys)
        return [reply for reply in known if reply is not None]

    def _key(self, request: Any) -> str:
        context, _, arguments, number, task, split = request
        how = [self.how.plan.canonical(), self.how.detail, self.how.area]
        size = getattr(getattr(self.loaded.processor, "image_processor", None), "size", None)
        model = [__version__, self.loaded.name, str(self.loaded.model.dtype), str(size)]
        return key_of(model, how, context, arguments, number, task, split, self.batch_size, *said_of(self.sampling))

    def _messages(self, request: Any) -> tuple[list[dict[str, Any]], list[Shown]]:
        _, messages_of, _, number, task, split = request
        chat = ChatMessages(messages=messages_of(self.task_dict[task][split][number]))
        images, videos, audios = chat.extract_media()
        messages = chat.to_hf_messages()
        if audios or any("video_start" in part or "video_end" in part for one in messages for part in one["content"]):
            raise InputError(f"task {task!r} has sounds or parts of videos: only pictures and whole videos are read")
        opened = [one if isinstance(one, Image.Image) else open_image(one) for one in images]
        shown: list[Shown] = [self.how.apply(one.convert("RGB")) for one in opened]
        return messages, [*shown, *(self._clip(task, one) for one in videos)]

    def _clip(self, task: str, video: Any) -> Clip:
        """The frames of a video that are shown.

        Raises:
            InputError: it is no file, or cannot be read.
            PlanError: pictures are to be made smaller, which is not done to videos.
        """
        if self.how.detail is not None or self.how.area is not None:
            raise PlanError("measured only on pictures, not on videos")
        if not isinstance(video, str | os.PathLike):
            raise InputError(f"task {task!r} has a video that is a {type(video).__name__}: only files are read")
        clip = open_shown(Path(video), self.sampling)
        if not isinstance(clip, Clip):
            raise InputError(f"task {task!r} says that {str(video)!r} is a video, and it is not")
        return clip

    def _generate(
        self, asked: Sequence[tuple[list[dict[str, Any]], list[Shown]]], arguments: dict[str, Any]
    ) -> list[Reply]:
        if not asked:
            return []
        texts = [self._text(messages, shown) for messages, shown in asked]
        inputs = self._inputs(texts, [shown for _, shown in asked])
        model, started = self.loaded.model, time.perf_counter()
        with torch.inference_mode(), prune(model, self.how.plan) as session:
            ids = model.generate(**inputs, **_generation(arguments))
        seconds = (time.perf_counter() - started) / len(asked)
        report, width = session.report, inputs["input_ids"].shape[1]
        stops = [stop for stop in arguments.get("until") or () if stop]
        replies = []
        for row, mask in enumerate(inputs["attention_mask"]):
            said = self.loaded.processor.decode(ids[row, width:], skip_special_tokens=True)
            for stop in stops:
                said = said.split(stop)[0]
            images = [image for image in report.images if image.row == row]
            replies.append(
                Reply(
                    text=said.strip(),
                    input_tokens=int(mask.sum()),
                    output_tokens=self._length(ids[row, width:]),
                    visual_tokens_before=sum(image.total for image in images),
                    visual_tokens_after=sum(image.kept for image in images),
                    visual_tokens_per_layer=round(sum(image.layer_average for image in images), 3),
                    kv_mib_before=_mib(report.kv_bytes_full, len(asked)),
                    kv_mib_after=_mib(report.kv_bytes_pruned, len(asked)),
                    prefill_ms=round((report.prefill_ms or 0.0) / len(asked), 3),
                    select_ms=round((report.selection_ms or 0.0) / len(asked), 3),
                    seconds=seconds,
                )
            )
        return replies

    def _text(self, messages: list[dict[str, Any]], shown: Sequence[Shown]) -> str:
        """The whole prompt, in the words of the family."""
        processor = self.loaded.processor
        own = getattr(processor, "chat_template", None)
        if own or getattr(processor.tokenizer, "chat_template", None):
            given = {} if own else {"chat_template": processor.tokenizer.chat_template}
            return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **given))
        words = "\n".join(part["text"] for one in messages for part in one["content"] if part["type"] == "text")
        kind = "video" if any(isinstance(one, Clip) for one in shown) else "image"
        text = self._form(getattr(processor, f"{kind}_token", f"<{kind}>"), len(shown), words)
        if not text:
            raise InputError(f"model {self.loaded.name!r} has no chat template")
        return text

    def _inputs(self, texts: Sequence[str], images: Sequence[list[Shown]]) -> dict[str, Any]:
        processor = self.loaded.processor
        if len(texts) == 1:
            return moved(self.loaded.model, read_prompt(processor, texts[0], images[0]))
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        start = processor.tokenizer.bos_token
        options = {"add_special_tokens": False} if start and texts[0].startswith(start) else {}
        shown = {"images": list(images)} if any(images) else {}
        made = dict(processor(text=list(texts), padding=True, return_tensors="pt", **shown, **options))
        made.pop("labels", None)
        return moved(self.loaded.model, made)

    def _length(self, ids: Any) -> int:
        """Tokens of an answer, its end mark included, padding not."""
        stop = self.loaded.model.generation_config.eos_token_id
        stops = set(stop if isinstance(stop, list) else [stop])
        found = next((i for i, token in enumerate(ids.tolist()) if token in stops), None)
        return len(ids) if found is None else found + 1

    def _log(self) -> None:
        """What lmms-eval writes into its results: means over the requests."""
        n = max(1, len(self.replies))
        seconds, tokens = sum(r.seconds for r in self.replies), sum(r.output_tokens for r in self.replies)
        log_metrics(
            total_elapsed_time=seconds, total_gen_tokens=tokens, avg_speed=tokens / seconds if seconds else 0.0,
            additional_metrics={name: value / n for name, value in self.totals().items()},
        )  # fmt: skip

    def totals(self) -> dict[str, float]:
        """Sums over all replies so far."""
        names = [name for name in Reply.__dataclass_fields__ if name != "text"]
        return {name: float(sum(getattr(reply, name) for reply in self.replies)) for name in names}


def _generation(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a task as `generate` has them: a temperature of 0 is greedy."""
    chosen = {name: arguments[name] for name in _GENERATION if arguments.get(name) is not None}
    samples = float(chosen.pop("temperature", 0.0) or 0.0)
    greedy = samples <= 0.0 or chosen.get("do_sample") is False
    chosen = {"max_new_tokens": LONGEST} | chosen | {"do_sample": not greedy}
    if greedy:
        chosen.pop("top_p", None)
        return chosen
    return chosen | {"temperature": samples}


def _mib(size: int | None, share: int) -> float:
    return 0.0 if size is None else round(size / 2**20 / share, 4)
