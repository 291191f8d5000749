"""`vlm-pruner report`: several methods and budgets on one question, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm_pruner.cli.console import console, progress, quiet, writable
from vlm_pruner.cli.options import Device, Dtype, Layer, Model, Picture, Question, Tokens, parse_keep, parse_list

__all__ = ["report"]


def report(
    image: Picture,
    question: Question,
    methods: Annotated[str, typer.Option("--methods", help="Names, with commas between.")] = "vlm-pruner,divprune",
    keep: Annotated[str, typer.Option("--keep", help="Budgets, with commas between.")] = "192,64",
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = Path("report.html"),
    model: Model = "embedded",
    layer: Layer = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    max_new_tokens: Tokens = 32,
) -> None:
    """Compare methods and budgets on one question: pictures, answers, probabilities and times in one HTML file."""
    from vlm_pruner import asking
    from vlm_pruner.asking.pictures import answers_page
    from vlm_pruner.methods import method_class
    from vlm_pruner.plan import PrunePlan

    names, budgets = parse_list(methods), [parse_keep(text) for text in parse_list(keep)]
    for name in names:
        method_class(name)
    picture = asking.open_image(image)
    writable(output)
    with progress(f"loading {model}") as say:
        quiet()
        loaded = asking.open_model(model, device=device, dtype=dtype)
        plans = [PrunePlan.of(n, k, layer, num_layers=loaded.layers) for n in names for k in budgets]
        answers = asking.ask(loaded, picture, question, plans, max_new_tokens=max_new_tokens, progress=say)
        say("drawing", 1.0)
        page = answers_page(loaded, picture, question, answers)
    output.write_text(page, encoding="utf-8")
    out = console()
    for answer in answers:
        out.print(f"{answer.name}: {answer.text}", markup=False)
    out.print(f"report: {output}", markup=False, soft_wrap=True)
