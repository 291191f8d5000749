"""Controls to handlers. A handler only translates between components and the desk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from vlm_pruner.web.board import alert
from vlm_pruner.web.controls import choices_of, row_of
from vlm_pruner.web.desk import Desk, Frame, message_of
from vlm_pruner.web.gallery import Picture, gallery
from vlm_pruner.web.parts import Parts, preview_html, share_html
from vlm_pruner.web.settings import Settings

__all__ = ["AT_ONCE", "wire"]

AT_ONCE = 24  # comparisons under way or waiting in our own line; further visitors wait in Gradio's queue
QUICK: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def wire(page: Any, desk: Desk, parts: Parts) -> None:
    """Connect the parts of a page that is being built."""
    uploaded = _wire_picture(desk, parts)
    _wire_run(page, desk, parts)
    _wire_links(page, desk, parts, uploaded)


def _wire_picture(desk: Desk, parts: Parts) -> Any:
    """The event of a file that was taken in."""
    shown = [parts.key, parts.preview, parts.question, parts.samples, parts.refused]

    def pick(chosen: str, key: str, uploaded: Any, question: str) -> list[Any]:
        picture = gallery()[chosen]
        return _show_picture(picture, desk.asked(question, _before(key, uploaded), picture))

    def upload(path: str, key: str, uploaded: Any, question: str) -> list[Any]:
        picture, problem = desk.upload(path)
        Path(path).unlink(missing_ok=True)  # a visitor's file is not kept; the picture lives in the session
        if picture is None:
            return [gr.skip(), gr.skip(), gr.skip(), gr.skip(), alert(problem), gr.skip(), gr.skip(), None]
        asked = desk.asked(question, _before(key, uploaded), picture)
        return [*_show_picture(picture, asked), None, picture, None]

    was = [parts.key, parts.uploaded, parts.question]
    parts.samples.input(lambda text: text, parts.samples, parts.question, **QUICK)
    parts.thumbs.input(pick, [parts.thumbs, *was], shown, **QUICK)
    renewed = [*shown, parts.thumbs, parts.uploaded, parts.upload]
    return parts.upload.upload(upload, [parts.upload, *was], renewed, **QUICK)


def _before(key: str, uploaded: Any) -> Picture:
    """The picture that was shown."""
    return gallery().get(key) or uploaded or gallery()["demo"]


def _show_picture(picture: Picture, question: str) -> list[Any]:
    """key, preview, question, samples, and no complaint about a file."""
    known = question if question in picture.questions else None
    samples = gr.update(choices=list(picture.questions), value=known)
    return [picture.key, preview_html(picture), question, samples, ""]


def _wire_run(page: Any, desk: Desk, parts: Parts) -> None:
    def run(request: gr.Request, key: str, uploaded: Any, question: str, tokens: float, *rows: Any) -> Iterator[Any]:
        for frame in desk.run(str(request.session_hash), key, uploaded, question, rows, int(tokens)):
            yield _show_frame(frame, len(parts.cards))

    def stop(request: gr.Request) -> Any:
        desk.jobs.stop(str(request.session_hash))
        return gr.update(interactive=False)

    def leave(request: gr.Request) -> None:
        desk.jobs.stop(str(request.session_hash))

    asked = [parts.key, parts.uploaded, parts.question, parts.tokens, *parts.rows]
    told = [parts.ask, parts.stop, parts.alert, parts.status, *parts.cards]
    gr.on(
        [parts.ask.click, parts.question.submit],
        run,
        asked,
        told,
        trigger_mode="once",
        concurrency_limit=AT_ONCE,
        **QUICK,
    )
    parts.stop.click(stop, None, parts.stop, queue=False, **QUICK)
    page.unload(leave)


def _show_frame(frame: Frame, columns: int) -> list[Any]:
    """ask, stop, alert, status, cards."""
    buttons = [gr.update(interactive=frame.over), gr.update(interactive=not frame.over)]
    cards = [frame.cards.get(number, gr.skip()) for number in range(columns)]
    return [*buttons, alert(frame.alert), gr.skip() if frame.status is None else frame.status, *cards]


def _wire_links(page: Any, desk: Desk, parts: Parts, uploaded: Any) -> None:
    set_by_visitor = [parts.key, parts.question, parts.tokens, *parts.rows]
    told = [parts.share, *parts.notes]

    def share(request: gr.Request, uploaded: Any, key: str, question: str, tokens: float, *rows: Any) -> list[Any]:
        try:
            picture = desk.picture(key, uploaded)
            shared = desk.share(_page(request), Settings(key, question, choices_of(rows), int(tokens)), picture.file)
            return [share_html(shared), *desk.budgets.notes(picture.image, rows)]
        except Exception as error:
            return [alert(message_of(error)), *(gr.skip() for _ in parts.notes)]

    def restore(request: gr.Request) -> list[Any]:
        query = {name: request.query_params.getlist(name) for name in request.query_params}
        settings, problem = desk.restore(query)
        picture = gallery()[settings.picture]
        shared = desk.share(_page(request), settings)
        shown = _show_picture(picture, settings.question)[:-1]
        rows = row_of(settings.choices)
        notes = desk.budgets.notes(picture.image, rows)
        return [picture.key, *shown, alert(problem), settings.max_new_tokens, *rows, share_html(shared), *notes]

    seen = [parts.thumbs, parts.key, parts.preview, parts.question, parts.samples]
    page.load(restore, None, [*seen, parts.alert, parts.tokens, *parts.rows, *told], **QUICK)
    changes = [part.change for part in set_by_visitor]
    given = [parts.uploaded, *set_by_visitor]
    gr.on(changes, share, given, told, queue=False, trigger_mode="always_last", **QUICK)
    uploaded.then(share, given, told, queue=False, **QUICK)  # the second one changes no key


def _page(request: gr.Request) -> str:
    """The address that the visitor sees; empty where the browser does not tell."""
    return str(request.headers.get("referer", ""))
