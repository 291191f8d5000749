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

<!-- Made by `python -m docs.methods` from the registry; do not edit. -->

All methods, what each keeps, from which paper it is, and what it costs. Ask for one by its name:
`vp.prune(model, "divprune", keep=64)`. If you do not know which one to take, read
[choosing a method and a budget](choosing.md) first. Not every method runs in every model family:
[methods by family](methods_by_family.md) says which does.

## How to read the table

- **stages**: where the method prunes and how many tokens are left behind each place, on a model of {LAYERS} layers
  with {TOKENS} visual tokens. `64 @ 2` means 64 tokens from layer 2 on; `@ LM` is before the language model, `@ tower`
  before the vision tower. You can put any method anywhere else with `layer=` or a [`PrunePlan`](api/plan.md), if
  what it reads exists there.
- **left**: how many tokens are left at the end if you ask for {KEEP}. For a method with several stages, `keep` is the
  nominal budget of its paper, and fewer may be left.
- **average**: visual tokens that enter a layer, averaged over all layers. This is what the budget really costs.
- **reads**: what the method needs beside the features of the tokens. In brackets stands what it uses only if it is
  there. If a model cannot give the rest, you get a [`MissingSignalError`](errors/signal.md).
- **sees the question**: whether another question about the same picture may keep other tokens.

What all methods have in common: the same input gives the same choice on every machine; each stage keeps exactly as many
tokens as it says (methods whose `keep` is an upper limit or an average say so); kept tokens keep their original
positions, unless you ask for `positions="repacked"`. Each method is one file in `src/vlm_pruner/methods/`.

In the descriptions below, *Parameters* are what you can set, with their usual values, as in
`vp.prune(model, "mmr", keep=64, balance=0.7)`; the [reference](api/methods.md) explains them. *Deviates* is where a
method differs from its released code, and why. *Cost* is that of one choice: n tokens of width d (c in the vision
tower), t words of the question.

## Methods made for videos

{VIDEOS}

These methods look at frames: those of a video, or equal tiles of a picture. A picture in one piece is a video of one
frame to them. Their exact counts sometimes differ from the released ones; *Deviates* says where, and the pure functions
of each file give the released counts. Tokens without a place in a frame (newlines) are kept last. Some of them read the
attention of the vision tower; models whose towers do not offer it (the Qwen families) are refused.

A smaller picture is no choice of tokens, and therefore no method here. The [benchmark](offline_benchmark.md) has it as
`downsample`.

## All methods
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
    if params := create(cls.name).params():
        parts += ["", "*Parameters*: " + ", ".join(f"`{name}={value!r}`" for name, value in params.items()) + "."]
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
