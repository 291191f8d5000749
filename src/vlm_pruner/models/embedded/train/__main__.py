"""Train the embedded model: `python -m vlm_pruner.models.embedded.train vision few all fresh --out FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .stages import NUMBERS, run


def _parser() -> argparse.ArgumentParser:
    numbers = "\n".join(
        f"  {name}: " + " ".join(f"{key}={value:g}" for key, value in values.items())
        for name, values in NUMBERS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m vlm_pruner.models.embedded.train",
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"numbers of the stages (--option):\n{numbers}",
    )
    parser.add_argument("stages", nargs="+", choices=list(NUMBERS), metavar="STAGE", help=", ".join(NUMBERS))
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoints and log.jsonl; an interrupted stage goes on from here"
    )
    parser.add_argument("--minutes", type=float, help="budget of each stage in time, instead of its steps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes; 0: drawn between steps")
    parser.add_argument(
        "--init", type=Path, help="checkpoint that the first stage starts from, instead of the stage before"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="override a number of the stage"
    )
    return parser


def main() -> None:
    """Run the stages asked for, one after the other; a finished one is passed over."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.stages:
        torch.manual_seed(options.seed)
        run(name, options)
        options.init = None


if __name__ == "__main__":
    main()
