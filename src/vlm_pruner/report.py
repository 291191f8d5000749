"""What pruning did: how many tokens of each image were kept, and what that saved. Numbers are measured or counted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any

import torch

from vlm_pruner import __version__
from vlm_pruner.plan import PrunePlan
from vlm_pruner.types import Selection

__all__ = ["ImageReport", "PruneReport", "SessionTotal", "provenance"]


def provenance() -> dict[str, Any]:
    """When and with what a result was made: `date` (ISO, with the zone) and `versions`."""
    versions = {"vlm_pruner": __version__, "torch": torch.__version__, "transformers": version("transformers")}
    return {"date": _now(), "versions": versions}


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


@dataclass(frozen=True)
class ImageReport:
    """One image or video of the last prefill."""

    row: int  # of the batch as it was passed
    index: int  # number of the image in its row
    modality: str
    grid: tuple[int, int, int]  # (t, h, w) of the plane in which its tokens lie
    total: int
    kept: int  # after the last stage
    layer_average: float  # mean over all decoder layers of the tokens that enter one
    note: str = ""  # why it was left alone
    selection: Selection | None = field(default=None, repr=False, compare=False)  # of the last stage

    def to_dict(self) -> dict[str, Any]:
        own = {k: getattr(self, k) for k in ("row", "modality", "total", "kept", "layer_average", "note")}
        index = None if self.selection is None else self.selection.index.tolist()
        return {**own, "image": self.index, "grid": list(self.grid), "index": index}


@dataclass(frozen=True)
class PruneReport:
    """The last prefill of a session and the decode steps since.

    Times are of the language model alone; a choice before the vision tower counts as selection. `*_full` is what the
    same prompt costs without pruning, by the formulas of `vlm_pruner.flops`, summed over the rows that were run:
    beams and samples run a row several times, while `images` names its images once.
    """

    images: tuple[ImageReport, ...]
    plan: PrunePlan
    selection_ms: float | None = None  # all stages together
    prefill_ms: float | None = None  # selection included
    decode_ms_per_token: float | None = None
    decoded_tokens: int = 0  # decode steps, each one token of every row
    flops_full: int | None = None  # of the prefill
    flops_pruned: int | None = None
    kv_bytes_full: int | None = None  # after the prefill
    kv_bytes_pruned: int | None = None
    vision_flops_full: int | None = None  # of the tower, where a stage acts before it
    vision_flops_pruned: int | None = None
    notes: tuple[str, ...] = ()
    reused_tokens: int = 0  # of a prefix that was run before; prefill_ms is then that of the rest alone
    saved_ms: float | None = None  # what the prefix took when it was run, vision tower included
    date: str = field(default_factory=_now, compare=False, init=False)

    @property
    def asked(self) -> int:
        """Visual tokens that were asked for, of all images. Methods with a schedule may leave fewer at the end."""
        return sum(self._asked_of(image) for image in self.images)

    def _asked_of(self, image: ImageReport) -> int:
        newer = sum(other.row == image.row for other in self.images[self.images.index(image) + 1 :])
        return image.total if image.note else self.plan.asked_of(image.total, newer)

    @property
    def total(self) -> int:
        """Visual tokens of all images."""
        return sum(image.total for image in self.images)

    @property
    def kept(self) -> int:
        """Visual tokens that are left of all images after the last stage."""
        return sum(image.kept for image in self.images)

    @property
    def spread(self) -> tuple[int, int] | None:
        """Fewest and most tokens that are left of an image; None unless the method shares a budget among images."""
        counts = [image.kept for image in self.images if not image.note]
        adapts = any(stage.method.budget != "fixed" for stage in self.plan.stages)
        return (min(counts), max(counts)) if adapts and len(counts) > 1 else None

    @property
    def layer_average(self) -> float:
        """Visual tokens of all images that enter a decoder layer, mean over the layers."""
        return sum(image.layer_average for image in self.images)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Images that were not pruned, each with the reason, and then anything else a reader may not expect."""
        alone: dict[str, list[str]] = {}
        for image in self.images:
            if image.note:
                row = f" of row {image.row}" if any(other.row for other in self.images) else ""
                alone.setdefault(image.note, []).append(f"{image.modality} {image.index}{row}")
        return (*(f"{', '.join(names)} {note}" for note, names in alone.items()), *self.notes)

    def __str__(self) -> str:
        if not self.images:
            return "; ".join(self.notes) or "nothing was run yet"
        asked = "" if self.asked == self.kept else f", {self.asked} asked for"
        parts = [f"{self.kept}/{self.total} tokens kept{asked}", f"{self.layer_average:.1f} a layer"]
        if self.spread is not None:
            parts.insert(1, f"{self.spread[0]} to {self.spread[1]} an image")
        if self.selection_ms is not None:
            parts.append(f"select {self.selection_ms:.1f} ms")
        if self.prefill_ms is not None:
            parts.append(f"prefill {self.prefill_ms:.0f} ms")
        if self.decode_ms_per_token is not None:
            parts.append(f"decode {self.decode_ms_per_token:.1f} ms/token")
        if self.flops_full and self.flops_pruned is not None:
            parts.append(f"FLOPs {self.flops_pruned / self.flops_full:.0%}")
        if self.vision_flops_full and self.vision_flops_pruned is not None:
            parts.append(f"tower FLOPs {self.vision_flops_pruned / self.vision_flops_full:.0%}")
        if self.kv_bytes_full is not None and self.kv_bytes_pruned is not None:
            parts.append(f"KV {_megabytes(self.kv_bytes_full)} -> {_megabytes(self.kv_bytes_pruned)} MB")
        if self.reused_tokens and self.saved_ms is not None:
            parts.append(f"{self.reused_tokens} tokens reused, {self.saved_ms:.0f} ms saved")
        return " · ".join([*parts, *self.remarks])

    def table(self) -> str:
        """One line per image, in aligned columns, then the totals."""
        head = ("row", "image", "grid", "total", "asked", "kept", "layer average", "")
        rows = [head]
        for i in self.images:
            grid = "x".join(str(side) for side in i.grid)
            place = (str(i.row), f"{i.modality} {i.index}", grid, str(i.total), str(self._asked_of(i)), str(i.kept))
            rows.append((*place, f"{i.layer_average:.1f}", i.note))
        widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*(lines if self.images else []), str(self)])

    def to_dict(self) -> dict[str, Any]:
        plain = ("selection_ms", "prefill_ms", "decode_ms_per_token", "decoded_tokens", "reused_tokens", "saved_ms")
        cost = ("flops_full", "flops_pruned", "kv_bytes_full", "kv_bytes_pruned")
        tower = ("vision_flops_full", "vision_flops_pruned")
        return {
            **provenance(),
            "date": self.date,
            "images": [image.to_dict() | {"asked": self._asked_of(image)} for image in self.images],
            "plan": self.plan.to_dict(),
            "fingerprint": self.plan.fingerprint(),
            "total": self.total,
            "asked": self.asked,
            "kept": self.kept,
            "layer_average": self.layer_average,
            **({} if self.spread is None else {"spread": list(self.spread)}),
            **{name: getattr(self, name) for name in plain + cost + tower},
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)


@dataclass(frozen=True)
class SessionTotal:
    """The sum over all calls of a session. Costs for which there is no formula count as 0."""

    calls: int = 0  # prefills, each with the decode steps after it
    images: int = 0
    tokens: int = 0  # visual ones, before pruning
    kept: int = 0  # after the last stage
    decoded_tokens: int = 0
    selection_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    flops_full: int = 0
    flops_pruned: int = 0
    kv_bytes_full: int = 0
    kv_bytes_pruned: int = 0

    def __add__(self, report: PruneReport) -> SessionTotal:
        """With one more call."""
        return SessionTotal(
            self.calls + 1,
            self.images + len(report.images),
            self.tokens + report.total,
            self.kept + report.kept,
            self.decoded_tokens + report.decoded_tokens,
            self.selection_ms + (report.selection_ms or 0.0),
            self.prefill_ms + (report.prefill_ms or 0.0),
            self.decode_ms + (report.decode_ms_per_token or 0.0) * report.decoded_tokens,
            self.flops_full + (report.flops_full or 0),
            self.flops_pruned + (report.flops_pruned or 0),
            self.kv_bytes_full + (report.kv_bytes_full or 0),
            self.kv_bytes_pruned + (report.kv_bytes_pruned or 0),
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}" if count >= 1e5 else f"{count / 1e6:.3f}"
