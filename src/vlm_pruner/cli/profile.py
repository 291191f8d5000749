"""`vlm-pruner profile`: where time and memory go with all visual tokens and with few, and where the limit is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_pruner.budget import parse_keep
from vlm_pruner.cli.console import console, note, print_json, progress, quiet
from vlm_pruner.cli.files import PLOTS, present, saving, writable
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Bias, Fps, Frames, Json, Layer, Method, parse_list
from vlm_pruner.cli.pruning import Pruning

if TYPE_CHECKING:
    from vlm_pruner.profiling import ProfileResult

__all__ = ["profile"]


def profile(
    model: Annotated[
        str, typer.Argument(help="'embedded', a checkpoint folder, a hub id, or the name of a published model's shape.")
    ] = "embedded",
    *,
    keep: Annotated[str | None, typer.Option("--keep", help="Budgets, separated by commas.", show_default="64")] = None,
    method: Method = None,
    layer: Layer = None,
    bias: Bias = None,
    pruning: Pruning,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Visual tokens of the prompt; without it, those of one image.")
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="Image or video file; without it, an image of the package.")
    ] = None,
    fps: Fps = None,
    frames: Frames = None,
    new_tokens: Annotated[int, typer.Option("--new-tokens", min=2, help="How many tokens to generate.")] = 8,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="How many rounds are measured; the table has their medians.")
    ] = 7,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; without it, torch chooses.")
    ] = None,
    json: Json = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="File for a plot: the parts of the time to the first token as bars.")
    ] = None,
    opening: Opening,
) -> None:
    """Measure where time and memory go, with and without pruning, and from which size on pruning pays."""
    present(image)
    opening.check()
    import torch  # and what needs it

    from vlm_pruner.asking import one_token
    from vlm_pruner.plan import parse_bias, parse_layer
    from vlm_pruner.profiling import profile as measure
    from vlm_pruner.profiling import subject_named
    from vlm_pruner.video import Sampling
    from vlm_pruner.viz.plots import figure_class

    pruning.register()
    plan, sampling = pruning.plan(method=method, keep=keep, layer=layer, bias=bias), Sampling(fps, frames)
    place, logits = None if layer is None else parse_layer(layer), parse_bias(bias)
    budgets = [parse_keep(text) for text in parse_list(keep or "64")]
    chosen = plan or pruning.methods([method or "vlm-pruner"])[method or "vlm-pruner"]
    if plot is not None:
        figure_class()
        writable(plot, PLOTS, read=image or "")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with progress(f"loading {model}") as say:
            quiet()
            subject = subject_named(model, tokens=tokens, image=image, sampling=sampling, tell=note, **opening.given())
            result = measure(
                subject.model, subject.inputs, chosen, name=subject.name, image=subject.image, keep=budgets,
                layer=place, bias=logits, new_tokens=new_tokens, repeats=repeats, progress=say,
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    note(one_token([] if plan else budgets, sum(result.image_tokens)))
    _tell(result, plot, json)


def _tell(result: ProfileResult, plot: Path | None, json: bool) -> None:
    """The table or the JSON on the screen, the bars as a file."""
    if json:
        print_json(result.to_dict())
    else:
        console().print(result.table(), markup=False, soft_wrap=True)
    if plot is None:
        return
    with saving(plot):
        result.plot(plot)
    if not json:
        console().print(f"plot: {plot}", markup=False, soft_wrap=True)
