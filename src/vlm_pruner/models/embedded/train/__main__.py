"""Train the embedded model: `python -m vlm_pruner.models.embedded.train vision|few|all --out FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .stages import STAGES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlm_pruner.models.embedded.train", description=__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoints and log.jsonl; an interrupted stage goes on from here"
    )
    parser.add_argument("--minutes", type=float, help="budget of the stage")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("--worker-cores", type=int, nargs="*", default=[], help="cores that they may use")
    parser.add_argument("--init", type=Path, help="checkpoint to start from, instead of the stage before")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="override a number of the stage"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
