"""What `benchmarks.fuzz` throws at the library, and what each target may answer: a result, or one of our errors.

    python -m benchmarks.fuzz_targets NAME CORPUS [options of libFuzzer]

Needs atheris, which the extra `hardening` holds. An input that raises anything else is a crash, and libFuzzer keeps it.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["NAMES", "Lots", "changed", "seeds", "target", "told"]

NAMES = ("plan", "picture", "video", "request")
ODD = (
    None, True, False, 0, 1, -1, 2**31, -(2**63), 10**400, 0.0, 0.5, 1.0, -0.5, 1e-308, 1e308, float("nan"),
    float("inf"), "", "a", "tower", "\ud800", "\0", "64", "vlm-pruner", [], {}, [[]], [1, 2], {"a": 1}, [None],
)  # fmt: skip


class Lots:
    """Choices drawn from the bytes of an input; 0 where they have run out."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def below(self, most: int) -> int:
        """A whole number from 0 to most - 1."""
        self.place += 2
        return int.from_bytes(self.data[self.place - 2 : self.place], "big") % most

    def of(self, things: Any) -> Any:
        """One of them."""
        return things[self.below(len(things))]

    @property
    def over(self) -> bool:
        """Are all bytes used up?"""
        return self.place >= len(self.data)


def changed(value: Any, lots: Lots) -> Any:
    """A JSON value with some of its parts replaced, dropped, doubled or added to, as the lots fall."""
    for _ in range(64):
        if lots.over:
            break
        value = _change(value, lots)
    return value


def _change(value: Any, lots: Lots) -> Any:
    if isinstance(value, dict) and value and lots.below(8):
        key = lots.of(sorted(value, key=str))
        what = lots.below(8)
        if what == 0:
            return {k: v for k, v in value.items() if k != key}
        if what == 1:
            return {**value, lots.of(["", "params", "stages", "older", "bias", "per", "layer", "x"]): lots.of(ODD)}
        return {**value, key: _change(value[key], lots)}
    if isinstance(value, list) and value and lots.below(8):
        place, what = lots.below(len(value)), lots.below(8)
        if what == 0:
            return value[:place] + value[place + 1 :]
        if what == 1:
            return [*value, value[place]]
        return [*value[:place], _change(value[place], lots), *value[place + 1 :]]
    if type(value) in (int, float) and lots.below(3):
        return value + lots.below(7) - 3
    return lots.of(ODD)


def plan(data: bytes) -> None:
    """Text of a plan: read or refused; what is read survives a round trip, and leaves a sound number of tokens."""
    from vlm_pruner.errors import PlanError
    from vlm_pruner.plan import PrunePlan

    text = data[1:].decode(errors="surrogateescape") if data[:1] < b"\x40" else _json(_plans(), data[1:])
    try:
        found = PrunePlan.from_json(text)
    except PlanError:
        return
    again = PrunePlan.from_json(found.to_json())
    assert again == found, "a round trip changes it"
    assert again.fingerprint() == found.fingerprint()
    try:
        lengths = found.check(64).lengths(576, 64)
    except PlanError:
        return
    assert all(1 <= after <= before <= 576 for before, after in zip([576, *lengths], lengths, strict=False)), lengths


def picture(data: bytes) -> None:
    """Bytes of a picture: RGB of a size that a processor takes, or refused."""
    from vlm_pruner.asking.opening import READ_PIXELS, read_image
    from vlm_pruner.errors import InputError

    try:
        found = read_image(_sound(data), "fuzz")
    except InputError as error:
        told(error)
        return
    assert found.mode == "RGB"
    assert 1 <= found.width * found.height <= READ_PIXELS


def video(data: bytes) -> None:
    """A file of a video; the first byte says which ending it has."""
    from vlm_pruner.asking.videos import open_shown
    from vlm_pruner.errors import InputError
    from vlm_pruner.video import Clip, Sampling

    ending = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".gif")[(data[0] if data else 0) % 6]
    path = _folder() / f"clip{ending}"
    path.write_bytes(data[1:])
    try:
        found = open_shown(path, Sampling(frames=3))
    except InputError as error:
        told(error)
        return
    assert not isinstance(found, Clip) or 1 <= len(found) <= 3


def request(data: bytes) -> None:
    """The body of a chat request: read, or refused with a status below 500."""
    from vlm_pruner.serving.http.limits import HttpError, Limits
    from vlm_pruner.serving.http.requests import read_request

    body = data[1:] if data[:1] < b"\x40" else _json(_requests(), data[1:]).encode()
    try:
        found = read_request(body, "application/json", Limits(), _plan_for())
    except HttpError as error:
        told(error)
        refused(error.status)
        return
    assert found.max_new_tokens >= 1


def _json(templates: list[Any], data: bytes) -> str:
    lots = Lots(data)
    return json.dumps(changed(lots.of(templates), lots))


@functools.cache
def _plans() -> list[Any]:
    from vlm_pruner.methods import registry
    from vlm_pruner.plan import PrunePlan

    made = [PrunePlan.of(name, keep, num_layers=32).to_dict() for name in registry() for keep in (64, 0.25)]
    return [*made, PrunePlan.of("vlm-pruner", 64, num_layers=32, older=(32, 0.1)).to_dict()]


@functools.cache
def _requests() -> list[Any]:
    from PIL import Image

    held = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(held, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is the word?"}]
    asked = [{"role": "system", "content": "Be short."}, {"role": "user", "content": parts}]
    plain = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "stream_options": {}, "n": 1}
    own = [{"keep": 64, "method": "divprune", "layer": 2, "params": {}, "older": [8]}, *_plans()[:8]]
    rest = {"max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "seed": 1, "max_completion_tokens": 4}
    return [plain, *({"model": "embedded", "messages": asked, **rest, "vlm_pruner": one} for one in own)]


@functools.cache
def _plan_for() -> Any:
    from vlm_pruner.asking import open_model

    return open_model("embedded").plan


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="vlm-pruner-fuzz-"))


def _sound(data: bytes) -> bytes:
    """A PNG file with the check sums that belong to its chunks: a reader would look at nothing behind a wrong one."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    made, place = bytearray(data[:8]), 8
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : end]
        made += data[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place = end + 4
    return bytes(made)


def told(error: Exception) -> None:
    """An error says what is wrong, in one line.

    Raises:
        AssertionError: it does not.
    """
    assert len(str(error).strip().splitlines()) == 1, f"{error!r} is not one line"


def refused(status: int) -> None:
    """The client is at fault, not the server.

    Raises:
        AssertionError: the server is.
    """
    assert 400 <= status < 500, f"a status of {status}"


def seeds(name: str) -> Iterator[bytes]:
    """Inputs to start from."""
    if name == "picture":
        yield from _pictures()
    elif name == "video":
        yield from _videos()
    else:
        for number in range(24):
            yield b"\xff" + bytes([0, number]) + b"\0\1\0\3" * (number % 3)
        made = _plans() if name == "plan" else _requests()
        yield from (b"\0" + json.dumps(one).encode() for one in made[:: max(1, len(made) // 8)])


def _pictures() -> Iterator[bytes]:
    from PIL import Image

    Image.init()
    for mode in ("RGB", "RGBA", "P", "L", "1", "I;16", "CMYK", "LA"):
        image = Image.linear_gradient("L").resize((16, 12)).convert(mode)
        for kind in sorted(Image.SAVE):
            held = io.BytesIO()
            try:
                image.save(held, kind, **({"save_all": True, "append_images": [image] * 2} if kind == "GIF" else {}))
            except Exception:  # most formats take some modes only
                continue
            yield held.getvalue()


def _videos() -> Iterator[bytes]:
    from tests.support.videos import write_gif, write_video

    for number, ending in enumerate((".mp4", ".webm", ".avi", ".mkv", ".mov")):
        yield bytes([number]) + write_video(_folder() / f"seed{ending}", 6, (32, 24)).read_bytes()
    yield bytes([5]) + write_gif(_folder() / "seed.gif", 3).read_bytes()


def target(name: str) -> Callable[[bytes], None]:
    """The function that takes one input of this name."""
    found: dict[str, Callable[[bytes], None]] = {"plan": plan, "picture": picture, "video": video, "request": request}
    return found[name]


def main() -> None:
    """One process of libFuzzer; see the module."""
    import atheris

    name, corpus = sys.argv[1:3]
    Path(corpus).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    modules = ("vlm_pruner.asking", "vlm_pruner.video", "vlm_pruner.plan", "vlm_pruner.stage", "vlm_pruner.budget")
    for module in [m for m in sys.modules if m.startswith(modules)]:
        del sys.modules[module]
    with atheris.instrument_imports(include=[*modules, "vlm_pruner.serving", "PIL"], enable_loader_override=False):
        target(name)(b"")
    os.environ["AV_LOG_FORCE_NOCOLOR"] = "1"
    atheris.Setup([sys.argv[0], *sys.argv[3:], corpus], target(name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
