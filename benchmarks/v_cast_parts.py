"""Why does V-CAST keep little of the evidence in our videos: is it the frames, or which half of a token's score?

    python -m benchmarks.v_cast_parts [--limit 4]            writes results/v_cast_parts.json

Its score of a token is 1 - the cosine with its frame's mean, plus the token's length, brought to 0 ... 1 in the frame.
Each half alone chooses, with V-CAST's own counts of every frame, and with equal counts. Nothing is answered: counted is
the evidence among the tokens kept before the language model of the embedded model for videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from benchmarks.common import Report, arguments, prepare
from torch import Tensor

from vlm_pruner.asking import EMBEDDED_VIDEO, open_model
from vlm_pruner.asking.prompts import read_prompt
from vlm_pruner.engine import prune
from vlm_pruner.evaluation.videos import ask_motion
from vlm_pruner.methods import PruningMethod
from vlm_pruner.methods._video import Video, best
from vlm_pruner.methods.v_cast import frame_quotas, standing_out, v_cast
from vlm_pruner.types import Selection, VisualTokens

__all__ = ["main"]

SHARE = 0.25


@final
@dataclass(frozen=True)
class _Looks(PruningMethod):
    """Keeps what it sees."""

    name: ClassVar[str] = "looks"
    source: ClassVar[str] = "benchmarks.v_cast_parts"
    seen: ClassVar[list[VisualTokens]] = []

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        self.seen.append(tokens)
        return Selection(torch.arange(keep))


def chosen(video: Video, keep: int) -> dict[str, Tensor]:
    """[t, l] bool by rule."""
    means, there = video.frames, video.there
    equal = frame_quotas(torch.ones(len(there), dtype=torch.float64), there.sum(1), keep, True)
    both = standing_out(video, means)
    length = video.lengths
    alone = both - (length - length.amin(1, keepdim=True)) / (
        length.amax(1, keepdim=True) - length.amin(1, keepdim=True)
    )
    return {
        "V-CAST": v_cast(video, keep),
        "V-CAST, equal frames": best(both, equal, there),
        "equal frames, 1 - cosine alone": best(alone, equal, there),
        "equal frames, length alone": best(length, equal, there),
        "equal frames, shortest": best(-length, equal, there),
    }


def main() -> None:
    """Entry point."""
    parser = arguments(__doc__)
    parser.add_argument("--limit", type=int, default=4, help="questions a type")
    given = parser.parse_args()
    report = Report("v_cast_parts", given, prepare(given))
    loaded = open_model(EMBEDDED_VIDEO)
    shares: dict[str, list[float]] = {}
    for asked in ask_motion(loaded.model, loaded.processor, "video", 1 if given.quick else given.limit):
        inputs: dict[str, Any] = read_prompt(loaded.processor, asked.prompt, list(asked.images))
        _Looks.seen.clear()
        with torch.inference_mode(), prune(loaded.model, _Looks(), keep=1, layer=0):
            loaded.model(**inputs, logits_to_keep=1)
        (tokens,) = _Looks.seen
        assert tokens.grid is not None
        assert asked.regions is not None
        evidence = asked.regions(tokens.grid[1:])[0].view(tokens.grid[0], -1)
        video = Video.of(tokens)
        if not bool(evidence.any()):
            continue
        keep = round(SHARE * len(tokens))
        for rule, kept in chosen(video, keep).items():
            shares.setdefault(rule, []).append(float(kept[evidence].double().mean()))
        rank = video.lengths.argsort(1).argsort(1).double() / (video.there.shape[1] - 1)
        shares.setdefault("place of evidence in the order of lengths", []).append(float(rank[evidence].mean()))
    for rule, values in shares.items():
        report.row(rule, questions=len(values), share=sum(values) / len(values))
    report.finish()


if __name__ == "__main__":
    main()
