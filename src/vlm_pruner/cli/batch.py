"""`vlm-pruner batch`: a folder, a JSONL or a Parquet file of questions in, answers out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_pruner.budget import Keep
from vlm_pruner.cli.console import console, note, progress, quiet
from vlm_pruner.cli.files import present, writable
from vlm_pruner.cli.opening import Opening
from vlm_pruner.cli.options import Bias, Layer, Method, Model, Quarter, Tokens
from vlm_pruner.cli.pruning import Pruning
from vlm_pruner.errors import InputError
from vlm_pruner.json_text import read_json

if TYPE_CHECKING:
    from vlm_pruner.serving.batch import Summary

__all__ = ["batch"]

ENGINES = ("local", "ray", "vllm")


def batch(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of pictures, or a .jsonl or .parquet file with the columns image and question.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write the answers to: .jsonl or .parquet.")
    ] = Path("answers.jsonl"),
    question: Annotated[
        str | None, typer.Option("--question", help="Question for rows that have none of their own.")
    ] = None,
    model: Model = "embedded",
    method: Method = None,
    keep: Quarter = None,
    layer: Layer = None,
    bias: Bias = None,
    pruning: Pruning,
    max_new_tokens: Tokens = 32,
    size: Annotated[int, typer.Option("--batch", min=1, help="How many rows at most are answered together.")] = 16,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="How many processes read pictures.", show_default="cores - 1, at most 8"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            help="Threads of torch in each process; the same number gives the same answers, byte for byte.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="What runs the model: local (also under torchrun), ray or vllm.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", help="Address of a running Ray cluster; without it, one is started on this machine."
        ),
    ] = None,
    actors: Annotated[
        int, typer.Option("--actors", min=1, help="How many copies of the model run on the Ray cluster.")
    ] = 1,
    opening: Opening,
) -> None:
    """Answer thousands of rows with the pruned model. After an interruption the same command continues."""
    present(source, "folder or file of questions")
    opening.check()
    from vlm_pruner.serving.batch import Job, Progress, run_job  # with torch and transformers
    from vlm_pruner.serving.batch.results import beside
    from vlm_pruner.serving.batch.rows import ENDINGS

    pruning.register()
    wanted = pruning.single(method, keep, layer, 0.25, bias=bias)
    for path in (output, *beside(output).values()):
        writable(path, ENDINGS if path == output else ())
    if source.exists() and output.exists() and source.samefile(output):
        raise InputError(f"{str(output)!r} is the file that is read: write the answers to another one")
    job = Job(
        str(source), question, model, opening.given(), wanted.make, max_new_tokens, size,
        min(8, max(1, (os.cpu_count() or 2) - 1)) if workers is None else workers, threads, pruning.register,
        _described(pruning, method, wanted.keep, layer, bias) | ({"engine": engine} if engine == "vllm" else {}),
    )  # fmt: skip
    computing = _engine(engine, actors, address)
    if engine == "vllm":
        computing = _on_vllm(pruning, method, wanted.keep, layer, bias, threads)
    quiet()
    with progress(f"loading {model}") as say:

        def told(found: Progress) -> None:
            say(str(found), found.done / found.total)

        summary = run_job(job, output, engine=computing, progress=told)
    if summary is not None:
        _tell(summary, output)


def _described(pruning: Pruning, method: str | None, keep: Keep, layer: str | None, bias: str | None) -> dict[str, Any]:
    """What decides the plan, for the record: another run with anything else is another job."""
    if pruning.plan_file is not None:
        return {"plan": read_json(pruning.plan_file.read_text(encoding="utf-8"))}
    code = [file.read_text(encoding="utf-8") for file in pruning.methods_from or ()]
    asked = {"method": method or "vlm-pruner", "keep": keep, "layer": layer, "bias": bias}
    return {**asked, "set": pruning.parameters, "code": code}


def _engine(name: str, actors: int, address: str | None) -> Any:
    if name not in ENGINES:
        raise InputError(f"--engine is one of {', '.join(ENGINES)}, not {name!r}")
    if name == "ray":
        from vlm_pruner.serving.batch.on_ray import OnRay

        return OnRay(actors, address)
    if address is not None or actors != 1:
        raise InputError("--ray-address and --actors belong to --engine ray")
    return None


def _on_vllm(
    pruning: Pruning, method: str | None, keep: Keep, layer: str | None, bias: str | None, threads: int | None
) -> Any:
    """vLLM with the plan, which is made without a model.

    Raises:
        InputError: what has no meaning there.
    """
    from vlm_pruner.serving.batch.on_vllm import OnVllm

    given = {"--layer": layer if layer != "0" else None, "--bias": bias, "--threads": threads}
    if beside := ", ".join(name for name, value in given.items() if value is not None):
        raise InputError(
            f"--engine vllm prunes before the language model, and runs the model itself: leave out {beside}"
        )
    if (plan := pruning.plan()) is not None:
        return OnVllm(plan.to_dict())
    name = method or "vlm-pruner"
    return OnVllm({"method": name, "keep": keep, "params": pruning.methods([name])[name].params()})


def _tell(summary: Summary, output: Path) -> None:
    from vlm_pruner.serving.batch.results import beside

    out = console()
    out.print(str(summary), markup=False, soft_wrap=True)
    out.print("written: " + ", ".join(map(str, (output, *beside(output).values()))), markup=False, soft_wrap=True)
    if summary.errors:
        note(f"{summary.errors} of {summary.rows} rows have no answer; their 'error' says why")
    if summary.errors == summary.rows:
        raise typer.Exit(1)
