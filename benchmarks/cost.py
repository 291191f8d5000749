"""What pruning saves at scale: tokens, KV blocks, requests a second and price per million pictures, of measured times.

    vlm-pruner profile qwen2.5-vl-7b --tokens 1296 --layer 0 --keep 0.5,0.25,0.1 --json > profile.json
    python -m benchmarks.cost profile.json --gpus 8 --price 2.5 --cache-gb 40 --answer 64

A profile is of one prompt on one device. The model: a request costs its time to the first token, which nothing shares,
and its part of the decode steps, each of which serves as many requests as the cache holds, at most `--batch`; a step of
many requests takes as long as one of one, which is true as long as it is bound by reading the weights. Devices do not
wait for one another. So it is an estimate from above: a server is measured by `vllm bench serve`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import table

__all__ = ["costs"]

BLOCK = 16  # tokens of vLLM's KV block


def costs(
    profile: Mapping[str, Any], *, gpus: int, price: float, cache_gb: float, answer: int, batch: int
) -> list[dict[str, Any]]:
    """A row for every variant of a profile.

    Args:
        profile: what `vlm-pruner profile --json` printed.
        gpus: devices, each with the whole model.
        price: of one device for an hour.
        cache_gb: gigabytes of keys and values that a device holds.
        answer: tokens of an answer.
        batch: requests that are answered together at most.

    Raises:
        ValueError: a plan that prunes behind a layer, which servers cannot; a cache that holds no request.
    """
    pictures, rows = len(profile["image_tokens"]), []
    whole = profile["text_tokens"] + sum(profile["image_tokens"])
    for variant in profile["variants"]:
        if any(layer != 0 for layer, _ in variant["stages"]):
            raise ValueError(f"{variant['name']} prunes behind a layer; servers keep one length: profile --layer 0")
        tokens = profile["text_tokens"] + variant.get("kept", sum(profile["image_tokens"]))
        blocks = -(-(tokens + answer) // BLOCK)
        held = profile["variants"][0]["kv_bytes"] / (whole + profile["new_tokens"] - 1)  # bytes of one token
        together = min(batch, int(cache_gb * 1e9 // (blocks * BLOCK * held)))
        if together < 1:
            raise ValueError(f"{cache_gb:g} GB hold no request of {blocks} blocks")
        times = variant["median_ms"]
        seconds = (times["first_token"] + (answer - 1) * times["decode"] / together) / 1e3
        rows.append({
            "name": variant["name"], "tokens": tokens, "blocks": blocks, "together": together,
            "requests_a_second": gpus / seconds, "price_of_a_million": 1e6 / pictures * seconds * price / 3600,
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("profile", type=Path)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--price", type=float, required=True, help="of a device for an hour, in any currency")
    parser.add_argument("--cache-gb", type=float, required=True, help="for keys and values, on one device")
    parser.add_argument("--answer", type=int, default=64, help="tokens")
    parser.add_argument("--batch", type=int, default=256, help="requests answered together at most")
    given = vars(parser.parse_args())
    print(table(costs(json.loads(given.pop("profile").read_text()), **given)))
