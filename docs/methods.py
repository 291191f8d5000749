"""Writes docs/methods.md and the list of `vlm-pruner methods` from the registry: `python -m docs.methods`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from vlm_pruner.asking.entries import to_text
from vlm_pruner.budget import keep_count, layer_average
from vlm_pruner.evaluation import BenchResults
from vlm_pruner.methods import PruningMethod, create, registry
from vlm_pruner.plan import PrunePlan

__all__ = ["catalogue", "made_for_videos", "page"]

PAGE = Path(__file__).with_suffix(".md")
ROOT = PAGE.parents[1]
CATALOGUE = ROOT / "src" / "vlm_pruner" / "methods" / "catalogue.json"
MEASURED = ROOT / "benchmarks" / "results" / "offline_equal.json"
LAYERS, TOKENS, KEEP = 32, 576, 64
_SHOWN = ("Source", "Deviates", "Cost")
_WORDS = ("Args", *_SHOWN, "Raises")


def made_for_videos(cls: type[PruningMethod]) -> bool:
    """Does a method look at frames?"""
    return hasattr(sys.modules[cls.__module__], "Video")


VIDEOS = ", ".join(f"`{name}`" for name, cls in registry().items() if made_for_videos(cls))

INTRO = f"""# Methods

Made by `python -m docs.methods` from the registry; do not edit. Every method is one file in
`src/vlm_pruner/methods/` and one test in `tests/methods/`; the registry finds it, and the contract tests, the
end-to-end tests, the command line, the benchmark and this page take it from there.

Ask for a method by its name: `vp.prune(model, "divprune", keep=64)`. *Stages* are what that means on a model of
{LAYERS} layers with {TOKENS} visual tokens: tokens left @ layer, where LM is before the language model. *Average*
is the number of visual tokens that enter a layer, averaged over the layers: what equal budgets really cost. `keep`
of a method with several stages is the nominal budget of its paper: *left* is what {KEEP} asked for leave at the
end. Any method can be put anywhere with `layer=` or a `PrunePlan`, if what it reads is there. *Reads*: in brackets
what is used only if it is there; a model that cannot give the rest raises `MissingSignalError` with the name of the
method and of the signal. All methods are deterministic, keep exactly as many tokens as each of their stages says,
and keep original positions; `positions="repacked"` renumbers them where the first stage is before the language
model. Costs are of one choice: n tokens of width d (c in the vision tower), t words of the question.

Which family can run which method: [methods by family](methods_by_family.md).

Methods made for videos ({VIDEOS}) read the
frames off the grid (t, h, w): frames of a video, or equal tiles of a picture. A picture of one raster is a video of
one frame to them. Where their exact counts differ from the released ones is under *Deviates*; the pure functions
give the released counts. Tokens without a place in a frame (newlines) come last. Scores are float64 and rounded
before they are compared, so that neither a processor's rounding nor the order of additions decides between copies of
a token. Those that read the attention of the vision tower read it frame by frame, resized where the model pools its
frames; models whose towers do not offer it (the Qwen families) are refused.

Shrinking the picture itself before the vision tower is no choice of tokens; the benchmark has it as `downsample`.
"""


def page() -> str:
    """The whole page."""
    rows = ["| name | method | paper | year | stages | left | average | reads | sees the question |", "|" + "---|" * 9]
    rows += [_row(cls) for cls in registry().values()]
    return "\n".join([INTRO, *rows, "", *(_section(cls) for cls in registry().values())]).rstrip() + "\n"


def catalogue() -> str:
    """The file that lists the methods, in the order of their accuracy at equal cost."""
    results = BenchResults.load(MEASURED)
    bootstrap = results.bootstrap()
    found = {row.label: round(100 * bootstrap.accuracy(row.correct).value, 1) for row in results.rows()}
    return to_text(registry().values(), {name: found[name] for name in found if name != "none"})


def year(cls: type[PruningMethod]) -> str:
    """The year of a method's source: of its arXiv number if it has one; a dash for baselines."""
    number = re.search(r"arXiv:(\d\d)\d\d\.", cls.source)
    if number:
        return f"20{number[1]}"
    plain = re.search(r"\b20\d\d\b", cls.source)
    return plain[0] if plain else "–"


def _row(cls: type[PruningMethod]) -> str:
    method = create(cls.name)
    stages = method.stages(KEEP, LAYERS)
    lengths = PrunePlan.of(method, KEEP, num_layers=LAYERS).lengths(TOKENS, LAYERS)
    places = [f"{keep_count(TOKENS, keep)} @ {site or 'LM'}" for _, keep, site in stages]
    if len(places) > 4:
        places[2:-1] = ["…"]
    reads, wants = sorted(method.needs), sorted(method.wants - method.needs)  # as the fields of VisualTokens
    signals = ", ".join(reads + ([f"[{', '.join(wants)}]"] if wants else [])) or "–"
    cells = [f"[`{cls.name}`](#{cls.name})", cls.title, _linked(cls.source), year(cls), ", ".join(places)]
    cells += [str(lengths[-1]), f"{layer_average(lengths):.0f}", signals, "yes" if cls.question_aware else ""]
    return "| " + " | ".join(cells) + " |"


def _section(cls: type[PruningMethod]) -> str:
    """The class docstring: what the method does, then the paragraphs that start with one of the words."""
    text = inspect.getdoc(cls) or ""
    marks = [*re.finditer(rf"^({'|'.join(_WORDS)})[^:\n]*:", text, re.M)]
    parts = [f"## {cls.name}", "", text[: marks[0].start() if marks else None].strip()]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        if mark[1] in _SHOWN:
            content = text[mark.end() : following.start() if following else None].split("\n\n")[0]
            parts += ["", f"*{mark[1]}*: {_linked(' '.join(content.split()))}"]
    return "\n".join(parts) + "\n"


def _linked(text: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    CATALOGUE.write_text(catalogue(), encoding="utf-8")
    print(f"wrote {PAGE} and {CATALOGUE}")
