"""How a tiny random model of a family is built, and prompts for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.support.blocks import Blocks, Payload
from tests.support.configs import END, IMAGE, LAYERS, PAD, START, VIDEO
from torch import Tensor
from transformers import AutoModelForImageTextToText

__all__ = ["Family", "Prompt"]

_PIXELS = ("pixel_values", "pixel_values_videos")


@dataclass
class Prompt:
    """One row: token ids, and the pictures in it."""

    ids: Tensor  # [s]
    tokens: list[int] = field(default_factory=list)  # of every picture
    payload: list[Payload] = field(default_factory=list)

    @property
    def places(self) -> list[Tensor]:
        """[n] places of every picture's tokens, by counting placeholders: no code shared with the library."""
        visual = ((self.ids == IMAGE) | (self.ids == VIDEO)).nonzero().flatten()
        return list(visual.split(self.tokens)) if self.tokens else []


@dataclass(frozen=True)
class Family:
    """How to build a tiny model of a family and its prompts."""

    name: str
    config: Callable[[], Any]
    block: Blocks
    marked: bool = False  # pictures stand between start and end tokens
    types: str = ""  # the name of the tensor that tells pictures from text; several are separated by spaces
    apart: int = 1  # pieces of equal length that a picture is written in, with words after each: frames of a video
    closed: bool = False  # those pieces are rows of patches, each closed by one word
    bare: bool = False  # pictures first, then text
    grouped: bool = False  # pixels are grouped by row
    along: int = 0  # the axis along which the pixels of all pictures stand behind one another
    sliding: bool = False
    attentions: tuple[str, ...] = ("sdpa", "eager")
    encoder: str = ""  # attention of the vision tower, where it knows that one only
    options: dict[str, Any] = field(default_factory=dict)  # of from_config
    finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # what a processor does over all pictures
    sites: tuple[int, ...] = tuple(range(LAYERS))  # layers at which it can be pruned
    streams: int | None = None  # the axis of several residual streams in what decoder layers hand on
    untapped: bool = False  # nothing is seen of what its layers attend to
    readers: tuple[int, ...] = ()  # those that read the keys of others: rows that are dropped there are read by nobody
    alone: bool = False  # rows of unequal length are refused: padding counts where layers see blocks of keys
    counts: bool = False  # pictures are numbered through the batch: a row of it is not the row alone, pruned or not

    def model(self, attention: str = "sdpa", dtype: torch.dtype = torch.float64) -> Any:
        """Random weights that attend sharply, so that dropping tokens changes the answer."""
        torch.manual_seed(0)
        parts = {"text_config": attention, "vision_config": self.encoder}
        options = {"attn_implementation": parts if self.encoder else attention, **self.options}
        model = AutoModelForImageTextToText.from_config(self.config(), **options)
        complexes = [(part, name, b) for part in model.modules() for name, b in part.named_buffers(recurse=False)]
        complexes = [one for one in complexes if one[2].is_complex()]  # of which `to` would keep the real part alone
        for part, name, _ in complexes:
            setattr(part, name, None)
        model = model.to(dtype).eval()
        for part, name, table in complexes:
            setattr(part, name, table.to(torch.complex128) if dtype == torch.float64 else table)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(0, 0.16)
        model.generation_config.pad_token_id = PAD
        model.generation_config.eos_token_id = None
        return model

    def rows(self, hidden: Tensor) -> Tensor:
        """What decoder layers hand on as [b, q, channels]."""
        if self.streams is None or hidden.dim() == 3:
            return hidden
        return (hidden.permute(1, 2, 0, 3) if self.streams == 0 else hidden).flatten(2)

    def handed_on(self, rows: Tensor, like: Tensor) -> Tensor:
        """The inverse of `rows`, for what was shaped `like`."""
        if self.streams is None or like.dim() == 3:
            return rows
        split = rows.view(*rows.shape[:2], like.shape[self.streams], -1)
        return split.permute(2, 0, 1, 3) if self.streams == 0 else split

    def prompt(self, seed: int, pictures: int, tail: int = 6) -> Prompt:
        """Three words, `pictures` pictures with two words after each, `tail` words."""
        generator = torch.Generator().manual_seed(seed)
        words = functools.partial(_words, generator)
        parts, out = ([] if self.bare else [words(3)]), Prompt(torch.empty(0))
        for _ in range(pictures):
            token, count, payload = self.block(generator)
            span = torch.full((count // self.apart,), token)
            for _ in range(self.apart):
                parts += [torch.tensor([START]), span, torch.tensor([END])] if self.marked else [span]
                parts += [] if self.bare else [words(1 if self.closed else 2)]
            parts += [words(2)] if self.closed else []
            out.tokens.append(count)
            out.payload.append(payload)
        out.ids = torch.cat([*parts, words(tail)])
        return out

    def together(self, *prompts: Prompt) -> list[Prompt]:
        """Those that can be asked in one batch: the first one alone, where padding counts."""
        return list(prompts[:1] if self.alone else prompts)

    def inputs(
        self, prompts: Sequence[Prompt], dtype: torch.dtype = torch.float64, mask: bool = True
    ) -> dict[str, Any]:
        """A left-padded batch, as a processor gives it."""
        length = max(len(p.ids) for p in prompts)
        ids = torch.stack([torch.nn.functional.pad(p.ids, (length - len(p.ids), 0), value=PAD) for p in prompts])
        out: dict[str, Any] = {"input_ids": ids}
        if mask:
            out["attention_mask"] = torch.stack([(torch.arange(length) >= length - len(p.ids)).long() for p in prompts])
        payload = [one for p in prompts for one in p.payload]
        for key in {key for one in payload for key in one}:
            if self.grouped:
                value = _by_row([[one[key] for one in p.payload] for p in prompts])
            else:
                value = torch.cat([one[key] for one in payload if key in one], self.along if key in _PIXELS else 0)
            out[key] = value.to(dtype) if value.is_floating_point() else value
        for name in self.types.split():
            kinds = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
            out[name] = torch.zeros_like(kinds) if self.bare else kinds
        return self.finish(out) if self.finish else out


def _words(generator: torch.Generator, count: int) -> Tensor:
    return torch.randint(5, 85, (count,), generator=generator)


def _by_row(rows: list[list[Tensor]]) -> Tensor:
    """[rows, most pictures of a row, ...]; pictures that are not there are all zero."""
    most, like = max(map(len, rows)), next(one for row in rows for one in row)
    return torch.cat([torch.cat([*row, *[torch.zeros_like(like)] * (most - len(row))], 1) for row in rows])
