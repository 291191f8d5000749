"""A chat request as OpenAI's API has it, and what of it this server can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from vlm_pruner.errors import InputError, PlanError, VlmPrunerError, unknown_name
from vlm_pruner.json_text import read_json
from vlm_pruner.methods.base import create
from vlm_pruner.plan import PrunePlan
from vlm_pruner.serving.http.limits import HttpError, Limits
from vlm_pruner.serving.http.pictures import open_picture
from vlm_pruner.serving.http.uploads import Uploads, is_form, read_form

__all__ = ["Asked", "read_request"]

IGNORED = {"model", "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
NEUTRAL = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False, "tools": [], "logit_bias": {}}
KNOWN = {"messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stream", "stream_options"}
SHORT = {"keep", "layer", "method", "older", "params"}
SAMPLING: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0), "top_p": (0.0, 1.0), "seed": (-(2**63), 2**63 - 1),
}  # fmt: skip
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Asked:
    """One request."""

    messages: list[dict[str, Any]]  # as `asking.prompts.conversation_text` takes them
    images: list[Image.Image]
    max_new_tokens: int
    plan: PrunePlan | None  # None = the server's own
    stream: bool = False
    usage: bool = False  # asked for at the end of a stream
    sampling: dict[str, Any] = field(default_factory=lambda: {"do_sample": False})


def read_request(body: bytes, kind: str, limits: Limits, plan: Callable[..., PrunePlan]) -> Asked:
    """The request in a body.

    Args:
        kind: its Content-Type: a form with files, or else JSON, whatever it says.
        plan: makes the plan for the model, as `asking.Loaded.plan` does.

    Raises:
        HttpError: no JSON, no form, something that the API does not have or this server cannot do, or too much.
    """
    text, files = read_form(body, kind) if is_form(kind) else (body, Uploads({}))
    try:
        data = read_json(text)
    except InputError:
        raise _bad("the body is not JSON", "invalid_json") from None
    if not isinstance(data, dict):
        raise _bad("the body is a JSON object", "invalid_json")
    for key, value in data.items():
        neutral = value is None or (key in NEUTRAL and value == NEUTRAL[key])
        if key not in KNOWN | IGNORED | {"vlm_pruner"} and not neutral:
            raise _bad(f"{key!r} is not supported by this server", "unsupported_parameter")
    messages, images = _messages(data.get("messages"), limits, files)
    asked = data.get("max_completion_tokens", data.get("max_tokens"))
    tokens = min(256, limits.tokens) if asked is None else asked
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= limits.tokens:
        raise _bad(f"max_tokens is a whole number from 1 to {limits.tokens}", "invalid_max_tokens")
    stream = data.get("stream") or False
    options = data.get("stream_options") or {}
    if not isinstance(stream, bool) or not isinstance(options, dict):
        raise _bad("'stream' is true or false, and 'stream_options' an object", "invalid_stream")
    own = _plan(data.get("vlm_pruner"), plan)
    return Asked(messages, images, tokens, own, stream, bool(options.get("include_usage")), _sampling(data))


def _bad(message: str, code: str) -> HttpError:
    return HttpError(400, message, code)


def _messages(given: object, limits: Limits, files: Uploads) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    if not isinstance(given, list) or not given:
        raise _bad("'messages' is a list of messages", "invalid_messages")
    urls: list[object] = []
    messages = [_message(one, urls) for one in given]
    if messages[-1]["role"] != "user":
        raise _bad("the last message is the user's", "invalid_messages")
    if len(urls) > limits.images:
        raise _bad(f"{len(urls)} pictures; at most {limits.images} are read in a request", "too_many_images")
    images = [open_picture(url, number, limits, files) for number, url in enumerate(urls, 1)]
    files.check_all_taken()
    return messages, images


def _message(given: object, urls: list[object]) -> dict[str, Any]:
    if not isinstance(given, dict) or given.get("role") not in ROLES:
        raise _bad(f"a message has a 'role', one of {', '.join(ROLES)}, and a 'content'", "invalid_messages")
    content = given.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise _bad("'content' is a text or a list of parts", "invalid_messages")
    return {"role": given["role"], "content": [_part(part, urls) for part in parts]}


def _part(given: object, urls: list[object]) -> dict[str, str]:
    kind = given.get("type") if isinstance(given, dict) else None
    if isinstance(given, dict) and kind == "text" and isinstance(given.get("text"), str):
        return {"type": "text", "text": given["text"]}
    if isinstance(given, dict) and kind == "image_url":
        held = given.get("image_url")
        urls.append(held.get("url") if isinstance(held, dict) else held)
        return {"type": "image"}
    raise _bad(f"a part is of type text or image_url, not {kind!r}", "invalid_messages")


def _plan(asked: object, make: Callable[..., PrunePlan]) -> PrunePlan | None:
    """A plan of a request: a whole one, or `keep` and perhaps `method`, `layer` and `params`."""
    if asked is None:
        return None
    try:
        if not isinstance(asked, Mapping):
            raise PlanError(f"a plan is an object such as {{'keep': 64}}, not {asked!r}")
        if "stages" in asked:
            return make(PrunePlan.from_dict(asked))
        if unknown := asked.keys() - SHORT:
            raise PlanError(unknown_name("key", sorted(unknown)[0], SHORT))
        method = create(asked.get("method", "vlm-pruner"), **asked.get("params", {}))
        return make(method, asked.get("keep"), asked.get("layer"), **{k: asked[k] for k in ("older",) if k in asked})
    except (VlmPrunerError, TypeError) as error:
        raise _bad(f"vlm_pruner: {error}", "invalid_plan") from None


def _sampling(data: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, (least, most) in SAMPLING.items():
        value = data.get(name)
        if value is None:
            continue
        number = isinstance(value, int if name == "seed" else int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most:  # no NaN does
            raise _bad(f"{name} is a number from {least} to {most}", f"invalid_{name}")
        values[name] = value
    if not values.get("temperature"):
        return {"do_sample": False}  # also where none is given: greedy, as `ask`
    return {"do_sample": True, **values}
