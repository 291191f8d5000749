"""From a question to what a model reads: the prompt in the words of its family, and what cannot stand in a question."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from vlm_pruner.asking.colours import as_shown
from vlm_pruner.asking.shapes import check_shape, refusal
from vlm_pruner.errors import InputError, first_line

__all__ = ["Form", "check_question", "conversation_text", "prompt_inputs", "prompt_text", "read_prompt"]

Form = Callable[[str, int, str], str | None]
"""`Adapter.prompt`: (placeholder, number of images, question) -> prompt."""

_UNREAD = ("labels",)  # made for training alone


def prompt_inputs(
    processor: Any, question: str, image: Image.Image | Sequence[Image.Image] | None, *, form: Form | None = None
) -> dict[str, Any]:
    """What `generate` takes for one question about one image, about several, or about none.

    Args:
        form: writes the prompt where the processor has no chat template.

    Raises:
        InputError: an empty question, one that holds a placeholder or a control token of the model, or one that is no
            text; a model without a prompt form; a picture, or the lack of one, that the processor refuses; a picture
            that is too large or too thin.
    """
    check_question(processor, question)
    shown = [image] if isinstance(image, Image.Image) else list(image or ())
    return read_prompt(processor, prompt_text(processor, question, len(shown), form), shown)


def read_prompt(processor: Any, text: str, shown: Sequence[Image.Image]) -> dict[str, Any]:
    """What `generate` takes for a whole prompt, placeholders of the images included.

    Raises:
        InputError: a picture, or the lack of one, that the processor refuses.
    """
    shown = [as_shown(one) for one in shown]
    for one in shown:
        check_shape(processor, one)
    start = getattr(processor.tokenizer, "bos_token", None)
    options = {"add_special_tokens": False} if start and text.startswith(start) else {}
    pictures = {"images": shown} if shown else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the processor's own code, whoever calls it
            made = dict(processor(text=[text], return_tensors="pt", **pictures, **options))
    except Exception as error:  # processors raise whatever they stumble over
        raise refusal(processor, shown, error) from error
    return {name: value for name, value in made.items() if name not in _UNREAD}


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


def prompt_text(processor: Any, question: str, images: int, form: Form | None) -> str:
    """The whole prompt of a question about so many images.

    Raises:
        InputError: a model without a prompt form.
    """
    content = [*[{"type": "image"}] * images, {"type": "text", "text": question}]
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
    images = sum(part["type"] == "image" for part in parts)
    text = None if form is None else form(getattr(processor, "image_token", "<image>"), images, question)
    if text is None:
        raise InputError(
            "this checkpoint has no chat template, and how its family writes a prompt is not known: add a "
            "chat_template.jinja to its folder"
        )
    return text
