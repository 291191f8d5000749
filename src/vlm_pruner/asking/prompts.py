"""From a question to what a model reads: the prompt in the words of its family, and what cannot stand in a question."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from PIL import Image

from vlm_pruner.asking.colours import as_shown
from vlm_pruner.asking.shapes import check_shape, refusal
from vlm_pruner.errors import InputError, first_line
from vlm_pruner.video import Clip

__all__ = [
    "Form", "Kind", "check_question", "conversation_text", "kinds_of", "prompt_inputs", "prompt_text", "read_prompt",
    "tokenizing",
]  # fmt: skip

Form = Callable[[str, int, str], str | None]
"""`Adapter.prompt`: (placeholder, number of images, question) -> prompt."""

Kind = Literal["image", "video"]

_UNREAD = ("labels",)  # made for training alone


def prompt_inputs(
    processor: Any,
    question: str,
    shown: Image.Image | Clip | Sequence[Image.Image | Clip] | None,
    *,
    form: Form | None = None,
) -> dict[str, Any]:
    """What `generate` takes for one question about a picture or a video, about several of them, or about none.

    Args:
        form: writes the prompt where the processor has no chat template.

    Raises:
        InputError: an empty question, one that holds a placeholder or a control token of the model, or one that is no
            text; a model without a prompt form; a picture, or the lack of one, that the processor refuses; a picture
            that is too large or too thin; a video for a processor that takes none.
    """
    check_question(processor, question)
    every = [shown] if isinstance(shown, Image.Image | Clip) else list(shown or ())
    return read_prompt(processor, prompt_text(processor, question, kinds_of(every), form), every)


def kinds_of(shown: Sequence[Image.Image | Clip]) -> list[Kind]:
    """What stands in a prompt for each of them."""
    return ["video" if isinstance(one, Clip) else "image" for one in shown]


def read_prompt(processor: Any, text: str, shown: Sequence[Image.Image | Clip]) -> dict[str, Any]:
    """What `generate` takes for a whole prompt, placeholders of pictures and videos included.

    Raises:
        InputError: a picture or a video, or the lack of one, that the processor refuses.
    """
    pictures = [as_shown(one) for one in shown if isinstance(one, Image.Image)]
    for one in pictures:
        check_shape(processor, one)
    options = tokenizing(processor, text)
    options |= {"images": pictures} if pictures else {}
    clips = [one for one in shown if isinstance(one, Clip)]
    options |= _videos(processor, clips)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the processor's own code, whoever calls it
            made = dict(processor(text=[text], return_tensors="pt", **options))
    except Exception as error:  # processors raise whatever they stumble over
        raise refusal(processor, pictures, error, len(clips)) from error
    return {name: value for name, value in made.items() if name not in _UNREAD}


def tokenizing(processor: Any, text: str) -> dict[str, Any]:
    """What a tokenizer is told with a whole prompt: some templates begin with what it would add itself."""
    start = getattr(processor.tokenizer, "bos_token", None)
    return {"add_special_tokens": False} if start and text.startswith(start) else {}


def _videos(processor: Any, clips: Sequence[Clip]) -> dict[str, Any]:
    """What a processor is told of videos: frames that were chosen before, and when they are seen.

    Raises:
        InputError: it takes no videos.
    """
    if not clips:
        return {}
    reader = getattr(processor, "video_processor", None)
    if reader is None:
        raise InputError("the processor of this model takes no videos: give it the frames as pictures")
    least = int(getattr(reader, "temporal_patch_size", None) or 1)
    ready = [clip.lasting(least) for clip in clips]
    times = [clip.metadata() for clip in ready]
    return {"videos": [clip.frames for clip in ready], "do_sample_frames": False, "video_metadata": times}


def check_question(processor: Any, question: str) -> None:
    """Raise where a tokenizer would not read the question as words alone.

    Raises:
        InputError: it is empty, holds a placeholder or a control token of the model, or is no text.
    """
    if not question.strip():
        raise InputError("the question is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        byte = question[error.start]
        raise InputError(f"the question is not valid UTF-8: {byte!r} at character {error.start + 1}") from None
    _check_tokens(processor, question)


def _check_tokens(processor: Any, question: str) -> None:
    tokenizer = processor.tokenizer
    known = {str(token): "the control token" for token in tokenizer.all_special_tokens}
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    known |= {str(token): "the control token" for token in added if getattr(token, "special", False)}
    for holder in (processor, tokenizer):
        for name in ("image", "video", "audio"):
            token = getattr(holder, f"{name}_token", None)
            if isinstance(token, str):
                known[token] = f"the {name} placeholder"
    for token in sorted(known, key=len, reverse=True):
        if token.strip() and token in question:
            raise InputError(
                f"the question contains {known[token]} {token!r}, which this model does not read as words; leave it out"
            )


def prompt_text(processor: Any, question: str, kinds: Sequence[Kind], form: Form | None) -> str:
    """The whole prompt of a question about pictures and videos, in their order.

    Raises:
        InputError: a model without a prompt form, or without one of several kinds.
    """
    content = [*({"type": kind} for kind in kinds), {"type": "text", "text": question}]
    return conversation_text(processor, [{"role": "user", "content": content}], form)


def conversation_text(processor: Any, messages: Sequence[Mapping[str, Any]], form: Form | None) -> str:
    """The whole prompt of a conversation whose next answer is the model's.

    Args:
        messages: each a `role` and a `content`: parts `{"type": "image"}` and `{"type": "text", "text": ...}`.

    Raises:
        InputError: a model without a prompt form, or one that has no form for this conversation.
    """
    own = getattr(processor, "chat_template", None)
    template = own or getattr(processor.tokenizer, "chat_template", None)
    if template:
        given = {} if own else {"chat_template": template}
        try:
            return str(
                processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **given)
            )
        except Exception as error:  # templates are programs
            raise InputError(f"the chat template of this model cannot be filled in: {first_line(error)}") from error
    if [message["role"] for message in messages] != ["user"]:
        raise InputError("this checkpoint has no chat template: it can be asked one question, without a system message")
    parts = messages[0]["content"]
    question = "\n".join(part["text"] for part in parts if part["type"] == "text")
    kinds = [part["type"] for part in parts if part["type"] != "text"]
    if len(set(kinds)) > 1:
        raise InputError(
            "this checkpoint has no chat template, and its family's prompt takes no pictures beside videos"
        )
    kind = kinds[0] if kinds else "image"
    text = None if form is None else form(getattr(processor, f"{kind}_token", f"<{kind}>"), len(kinds), question)
    if text is None:
        raise InputError(
            "this checkpoint has no chat template, and how its family writes a prompt is not known: add a "
            "chat_template.jinja to its folder"
        )
    return text
